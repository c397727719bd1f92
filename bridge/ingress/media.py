"""Media types: what a body is written in, and what a client takes; pure functions over header text."""

import re
from enum import Enum, StrEnum

from bridge.errors import NotAcceptableError, UnsupportedMediaTypeError
from bridge.ingress.headers import check_content

NDJSON = "application/x-ndjson"
_NDJSON = frozenset({NDJSON, "application/ndjson"})
_QUALITY = re.compile(r"(0(\.\d{0,3})?|1(\.0{0,3})?)\Z")
_UTF_8 = frozenset({"utf-8", "utf8"})


class Body(Enum):
    """What a request is written in."""

    JSON = 1
    AVRO = 2
    FRAMED = 3


_AVRO = "avro/binary"
_FRAMES = {(): Body.AVRO, (("frame", "confluent"),): Body.FRAMED}


def read_content(content_type: str | None, encoding: str | None) -> Body:
    """Read what a request's body is written in.

    `avro/binary` is the Avro specification's own name for one value without a header. With the
    parameter `frame=confluent` the five bytes of the wire format are in front.

    Raises:
        UnsupportedMediaTypeError: Neither JSON in UTF-8 nor Avro, or encoded further.
    """
    if content_type is None or content_type == "application/json":  # nearly always
        check_content(content_type, encoding)
        return Body.JSON
    media, parameters = parse_media(content_type)
    if media != _AVRO:
        check_content(content_type, encoding)
        return Body.JSON
    body = _FRAMES.get(tuple((name, value.lower()) for name, value in parameters.items()))
    if body is None:
        raise UnsupportedMediaTypeError(
            f"Content-Type is {content_type[:80]!r}: want {_AVRO}, or {_AVRO}; frame=confluent"
        )
    check_encoding(encoding)
    return body


class Media(StrEnum):
    """What the ingress answers with."""

    JSON = "application/json"
    EVENTS = "text/event-stream"
    LINES = NDJSON
    AVRO = "avro/binary"

    @property
    def is_stream(self) -> bool:
        """Whether events are told as they come, not the reply at the end."""
        return self in {Media.EVENTS, Media.LINES}


_NAMES = {
    Media.JSON: {"application/json", "application/problem+json"},
    Media.EVENTS: {"text/event-stream"},
    Media.LINES: _NDJSON,
    Media.AVRO: {"avro/binary"},
}


def choose_media(accept: str | None, offers: tuple[Media, ...]) -> Media:
    """Choose what to answer with: what `Accept` likes best of what there is (RFC 9110, 12.5.1).

    Where it likes several alike, the one that it names more closely; then the first of the offers.

    Raises:
        NotAcceptableError: `Accept` admits none of them.
    """
    if accept is None or accept in {"*/*", offers[0]}:
        return offers[0]
    ranges = [_read_range(item) for item in accept.split(",")]
    liked = [(_like(ranges, offer), -place, offer) for place, offer in enumerate(offers)]
    (quality, _), _, best = max(liked)
    if quality == 0:
        raise NotAcceptableError(f"Accept is {accept[:80]!r}: answers are {', '.join(offers)}")
    return best


def _read_range(item: str) -> tuple[str, float]:
    media, parameters = parse_media(item)
    quality = _QUALITY.match(parameters.get("q", ""))
    return media, float(quality[0]) if quality else 1.0


def _like(ranges: list[tuple[str, float]], offer: Media) -> tuple[float, int]:
    """Return how much a media type is liked, 0 to 1, and how closely it is named, 0 to 2."""
    kind = offer.partition("/")[0]
    for closeness, names in ((2, _NAMES[offer]), (1, {f"{kind}/*"}), (0, {"*/*"})):
        found = [quality for media, quality in ranges if media in names]
        if found:
            return max(found), closeness
    return 0.0, 0


def check_batch(content_type: str | None, encoding: str | None, accept: str | None) -> None:
    """Accept NDJSON in UTF-8, not encoded further, for a client that takes NDJSON.

    Raises:
        UnsupportedMediaTypeError: Another body.
        NotAcceptableError: `Accept` names only other media types.
    """
    media, parameters = parse_media(content_type or "")
    if media not in _NDJSON or parameters.get("charset", "utf-8").lower() not in _UTF_8:
        raise UnsupportedMediaTypeError(
            f"Content-Type is {(content_type or 'absent')[:80]!r}: want {NDJSON} in utf-8, one "
            "JSON document a line"
        )
    check_encoding(encoding)
    if accept is not None and not takes(accept, _NDJSON):
        raise NotAcceptableError(f"Accept is {accept[:80]!r}: a batch is answered by {NDJSON}")


def check_encoding(encoding: str | None) -> None:
    """Accept a body that is not encoded.

    Raises:
        UnsupportedMediaTypeError: It is.
    """
    if encoding is not None and encoding.strip().lower() != "identity":
        raise UnsupportedMediaTypeError(
            f"Content-Encoding is {encoding[:40]!r}: want the body as it is, not encoded"
        )


def takes(accept: str, media_types: frozenset[str]) -> bool:
    """Tell whether `Accept` admits one of some media types, itself or by a range."""
    for item in accept.split(","):
        media, parameters = parse_media(item)
        if _is_zero(parameters.get("q", "1")):
            continue
        kind, _, rest = media.partition("/")
        if media in media_types or media == "*/*":
            return True
        if rest == "*" and any(each.startswith(f"{kind}/") for each in media_types):
            return True
    return False


def parse_media(text: str) -> tuple[str, dict[str, str]]:
    """Split a media type from its parameters, both in small letters where case means nothing."""
    media, *rest = text.split(";")
    parameters = {}
    for parameter in rest:
        name, _, value = parameter.partition("=")
        parameters[name.strip().lower()] = value.strip().strip('"')
    return media.strip().lower(), parameters


def _is_zero(quality: str) -> bool:
    return quality.rstrip("0") in {"", "0.", "."} and quality != ""
