"""What a client asks for: the head of its request, and the job made of head and body.

One struct and one pass per request: both are on the hot path.
"""

from collections.abc import Sequence

import msgspec

from bridge.claims import claim_key
from bridge.codec import parse_json
from bridge.envelope import format_request
from bridge.errors import IdempotencyKeyMissingError
from bridge.forward import take_request
from bridge.ingress.ask import Ingress
from bridge.ingress.headers import (
    Preference,
    parse_deadline,
    parse_idempotency_key,
    parse_prefer,
    parse_trace,
)
from bridge.ingress.job import Job, make_record
from bridge.ingress.limits import Limits
from bridge.ingress.look import SEE_END_S
from bridge.ingress.media import Body, Media, check_batch, choose_media, read_content
from bridge.service import Kind, Service
from bridge.tracing import create, find_tracer

Headers = dict[str, str]

REPLIES: dict[Kind, tuple[Media, ...]] = {
    "one": (Media.JSON, Media.AVRO),
    "stream": (Media.JSON,),
    "none": (Media.JSON,),
}
"""What a reply can be written in, by what a service answers; one Avro value holds no parts."""
_OFFERS: dict[Kind, tuple[Media, ...]] = {
    kind: media if kind == "none" else (*media, Media.EVENTS, Media.LINES)
    for kind, media in REPLIES.items()
}


class Head(msgspec.Struct, frozen=True):
    """What the headers of a `POST` ask for, checked.

    Attributes:
        preference: `Prefer`.
        deadline_s: `Bridge-Deadline`, or the service's, in seconds from now.
        trace: W3C trace context headers as they go to Kafka.
        media: What the client wants to be answered with.
        principal: Who asks, as authenticated; None: nobody was asked to say.
        forwarded: Headers that the service lets through, as they go to Kafka.
        body: What the request is written in.
        idempotency_key: `Idempotency-Key`, without its quotes; None: not given.
    """

    preference: Preference
    deadline_s: float
    trace: tuple[tuple[str, bytes], ...]
    media: Media = Media.JSON
    principal: str | None = None
    forwarded: tuple[tuple[str, bytes], ...] = ()
    body: Body = Body.JSON
    idempotency_key: str | None = None

    def claim_key(self, service: Service, line: int | None = None) -> str | None:
        """Return what is claimed for this request, or for one line of a batch; None: nothing is."""
        if self.idempotency_key is None:
            return None
        return claim_key(service.name, self.principal, self.idempotency_key, line)


def read_headers(raw: Sequence[tuple[bytes, bytes]]) -> Headers:
    """Read header fields; those that are repeated are one, as a list (RFC 9110, 5.3)."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}
    if len(headers) != len(raw):
        for name in headers:
            values = [value for other, value in raw if other == name.encode("latin-1")]
            headers[name] = b", ".join(values).decode("latin-1")
    return headers


def read_head(
    service: Service, headers: Headers, limits: Limits, principal: str | None = None
) -> Head:
    """Read what a request of a principal to a service asks for.

    Raises:
        UnsupportedMediaTypeError, NotAcceptableError, MalformedHeaderError: A header is not usable.
        IdempotencyKeyMissingError: The service wants one.
    """
    body = read_content(headers.get("content-type"), headers.get("content-encoding"))
    return Head(
        preference=parse_prefer(headers.get("prefer"), max_wait_s=limits.max_wait_s),
        deadline_s=parse_deadline(headers.get("bridge-deadline"), default_s=service.deadline_s),
        trace=parse_trace(headers),
        principal=principal,
        body=body,
        forwarded=take_request(service.forward, headers) if service.forward else (),
        media=choose_media(headers.get("accept"), _OFFERS[service.kind]),
        idempotency_key=_read_key(service, headers.get("idempotency-key")),
    )


def read_batch_head(
    service: Service, headers: Headers, limits: Limits, principal: str | None = None
) -> Head:
    """Read what a batch asks for: each of its lines waits to its deadline, or not at all.

    Raises:
        UnsupportedMediaTypeError, NotAcceptableError, MalformedHeaderError: A header is not usable.
    """
    check_batch(headers.get("content-type"), headers.get("content-encoding"), headers.get("accept"))
    asked = parse_prefer(headers.get("prefer"), max_wait_s=limits.max_wait_s)
    deadline_s = parse_deadline(headers.get("bridge-deadline"), default_s=service.deadline_s)
    wait_s, applied = (0.0, "respond-async") if asked.is_async else (deadline_s, "")
    return Head(
        preference=Preference(wait_s, asked.is_async, applied),
        deadline_s=deadline_s,
        trace=parse_trace(headers),
        principal=principal,
        forwarded=take_request(service.forward, headers) if service.forward else (),
        idempotency_key=_read_key(service, headers.get("idempotency-key")),
    )


def _read_key(service: Service, text: str | None) -> str | None:
    if text is not None:
        return parse_idempotency_key(text)
    if service.wants_key:
        raise IdempotencyKeyMissingError(
            f"{service.name} takes requests with an Idempotency-Key only: send one of your own "
            "making, and the same one when you send the request again"
        )
    return None


def make_job(ingress: Ingress, service: Service, head: Head, body: bytes) -> Job:
    """Make a request of what a client sent; nothing is written yet.

    Raises:
        MalformedBodyError, InvalidPayloadError: The body does not fit the service's contract.
        UnavailableError, TopicError: Nothing can be taken now.
    """
    if head.body is Body.JSON:
        value = parse_json(body, max_depth=ingress.limits.max_depth)
        encoded, key = service.encode(value), service.key_of(value)
    else:
        encoded, key = service.take_binary(body, is_framed=head.body is Body.FRAMED)
    request = ingress.new_request(
        service, deadline_s=head.deadline_s, principal=head.principal, trace=head.trace
    )
    tracer = find_tracer()
    if tracer is not None:
        made = create(tracer, service.requests_topic, request.request_id, head.trace)
        request = msgspec.structs.replace(request, trace=made)
    partitions = ingress.lanes.partitions(service)
    headers = format_request(request)
    headers.extend(head.forwarded)
    record = make_record(service, request, key, encoded, headers, partitions)
    wait_s = service.wait_s if head.preference.wait_s is None else head.preference.wait_s
    wait_s = 0.0 if service.kind == "none" else min(wait_s, head.deadline_s + SEE_END_S)
    return Job(
        service,
        request,
        record,
        wait_s,
        announce=head.media.is_stream and head.idempotency_key is None,
        is_patient=head.preference.is_async,
        is_claimed=head.idempotency_key is not None,
    )
