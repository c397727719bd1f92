"""What a client's headers ask for; pure functions over header text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bridge.errors import (
    MalformedHeaderError,
    UnsupportedMediaTypeError,
)
from bridge.service import MAX_DEADLINE_S

_DECIMAL = re.compile(r"\d{1,9}(\.\d{1,6})?\Z")
_JSON = re.compile(
    r"application/json\s*(;\s*charset=\"?(?P<charset>[^\";\s]+)\"?\s*)?\Z", re.IGNORECASE
)
_KEY = re.compile(r"[!-~]{1,255}\Z")
_QUOTED = re.compile(r'"(?P<text>(?:[^"\\]|\\["\\])*)"\Z')
_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}"
    r"(?P<more>-[\x21-\x7e]{0,200})?\Z"
)
_STATE_BYTES = 2048  # W3C asks for 512 at least, and for 32 members


@dataclass(frozen=True, slots=True)
class Preference:
    """What `Prefer` (RFC 7240) asks for.

    Attributes:
        wait_s: Seconds to wait; None: not said.
        is_async: `respond-async` was given.
        applied: The value of `Preference-Applied`; empty: nothing was asked for.
    """

    wait_s: float | None = None
    is_async: bool = False
    applied: str = ""


_NOTHING = Preference()


def parse_prefer(text: str | None, *, max_wait_s: float) -> Preference:
    """Read `Prefer`; what is not understood is ignored, as RFC 7240 asks (section 2).

    `respond-async` alone does not wait; together with `wait=N` it waits up to N (section 4.3).
    Of a repeated preference the first counts.
    """
    if text is None:
        return _NOTHING
    wait_s: float | None = None
    is_async = False
    for preference in text.split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        name, value = name.strip().lower(), value.strip().strip('"')
        if name == "respond-async":
            is_async = True
        elif name == "wait" and wait_s is None and _DECIMAL.match(value):
            wait_s = min(float(value), max_wait_s)
    applied = ["respond-async"] if is_async else []
    if wait_s is not None:
        applied.append(f"wait={wait_s:g}")
    elif is_async:
        wait_s = 0.0
    return Preference(wait_s, is_async, ", ".join(applied))


def parse_trace(headers: Mapping[str, str]) -> tuple[tuple[str, bytes], ...]:
    """Read W3C trace context (Level 1, 3.2 and 3.3) as it goes to Kafka.

    What is malformed is dropped, not refused: the trace then begins with the next who makes spans.
    Without a `traceparent` a `tracestate` says nothing.
    """
    parent = headers.get("traceparent")
    if parent is None:
        return ()
    match = _TRACEPARENT.match(parent.strip())
    if match is None or match["version"] == "ff" or (match["version"] == "00" and match["more"]):
        return ()
    if not match["trace"].strip("0") or not match["span"].strip("0"):
        return ()
    state = headers.get("tracestate", "")
    if not state or not (state.isascii() and state.isprintable() and len(state) <= _STATE_BYTES):
        return (("traceparent", parent.strip().encode()),)
    return (("traceparent", parent.strip().encode()), ("tracestate", state.encode()))


def parse_deadline(text: str | None, *, default_s: float) -> float:
    """Read `Bridge-Deadline`: decimal seconds from receipt.

    Raises:
        MalformedHeaderError: Not a number between 0 and seven days.
    """
    if text is None:
        return default_s
    if not _DECIMAL.match(text.strip()) or not 0 < float(text) <= MAX_DEADLINE_S:
        raise MalformedHeaderError(
            f"Bridge-Deadline: {text[:40]!r}: want seconds from receipt, above 0, at most "
            f"{MAX_DEADLINE_S}, for example 2.5"
        )
    return float(text)


def parse_idempotency_key(text: str) -> str:
    """Read `Idempotency-Key`: a structured-field string, `"…"`, or the same without its quotes.

    Raises:
        MalformedHeaderError: Not 1 to 255 visible ASCII characters.
    """
    found = text.strip()
    if found.startswith('"'):
        quoted = _QUOTED.match(found)
        found = "" if quoted is None else re.sub(r"\\(.)", r"\1", quoted["text"])
    if _KEY.match(found) is None:
        raise MalformedHeaderError(
            f"Idempotency-Key: {text[:40]!r}: want 1 to 255 visible ASCII characters, in quotes or "
            'not, for example "8e03978e-40d5-43e8-bc93-6894a57f9324"'
        )
    return found


def check_content(content_type: str | None, encoding: str | None) -> None:
    """Accept JSON in UTF-8, not encoded further.

    Raises:
        UnsupportedMediaTypeError: Anything else.
    """
    if content_type != "application/json":
        match = _JSON.match(content_type or "")
        if match is None:
            raise UnsupportedMediaTypeError(
                f"Content-Type is {(content_type or 'absent')[:80]!r}: want application/json or avro/binary"
            )
        charset = match["charset"]
        if charset is not None and charset.lower() not in {"utf-8", "utf8"}:
            raise UnsupportedMediaTypeError(f"charset is {charset[:40]!r}: want utf-8 (RFC 8259)")
    if encoding is not None and encoding.strip().lower() != "identity":
        raise UnsupportedMediaTypeError(
            f"Content-Encoding is {encoding[:40]!r}: want the body as it is, not encoded"
        )


def parse_event_id(text: str | None) -> int | None:
    """Read `Last-Event-ID`: the `id` of the event that a client was told last.

    Returns:
        None: none yet. An empty one means the same, as in the HTML standard.

    Raises:
        MalformedHeaderError: No stream of events has such an ID.
    """
    if not text:
        return None
    offset = parse_number(text)
    if offset is None:
        raise MalformedHeaderError(
            f"Last-Event-ID: {text[:40]!r}: want the id of an event of this request, as it came"
        )
    return offset


def parse_number(text: str) -> int | None:
    """Read a decimal number as Kafka has them, below 2**63; None when it is none.

    `str.isdigit` alone lets "²" pass, which `int` does not read.
    """
    if not (text.isdecimal() and text.isascii() and len(text) <= 19):  # noqa: PLR2004
        return None
    number = int(text)
    return number if number < 1 << 63 else None
