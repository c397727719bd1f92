"""Every error the bridge raises, by who must act on it.

BridgeError
├── CallerError                  the caller must change the request
│   ├── MalformedBodyError       400  not JSON, not UTF-8, too deep, a member twice
│   ├── MalformedRequestError    400  no HTTP/1.1, or such that two could read it differently
│   ├── MalformedHeaderError     400  a header we understand has a value we do not
│   ├── IdempotencyKeyMissingError 400 the service wants an Idempotency-Key
│   ├── UnauthenticatedError     401  no API key, or none that is known
│   ├── NotFoundError            404  no such route
│   ├── UnknownServiceError      404  no contract of that name
│   ├── UnknownRequestError      404  no trace of that request ID
│   ├── MethodNotAllowedError    405  the route exists, not with that method
│   ├── NotAcceptableError       406  no representation that the client accepts
│   ├── AlreadyEndedError        409  it has ended, so it cannot be cancelled
│   ├── RequestTimeoutError      408  the request was not here in time
│   ├── GoneError                410  the reply log is past its retention
│   ├── BodyTooLargeError        413  more bytes than the ingress or Kafka takes
│   ├── UriTooLongError          414  a request target beyond the limit
│   ├── UnsupportedMediaTypeError 415 neither JSON in UTF-8 nor Avro, or an encoded body
│   ├── InvalidPayloadError      422  JSON or Avro, but not what the schema asks for
│   ├── IdempotencyKeyReusedError 422 the Idempotency-Key stands for a request with another body
│   └── HeadersTooLargeError     431  more header bytes than the limit
├── UnavailableError             nothing was written; the caller may simply try again
│   ├── OverloadedError          503  a queue or a limit is full, or the answer would come too late
│   ├── NoWorkersError           503  nobody is there to do the work
│   ├── DrainingError            503  this replica is stopping
│   ├── ClaimsAwayError          503  what Idempotency-Keys stand for cannot be read now
│   └── BrokerDownError          503  Kafka refused or could not be reached
├── OutcomeUnknownError          503  may or may not be written; look it up, or ask again
├── HandlingError                the worker's handler said no
│   ├── RetryableError           the same request may succeed later
│   └── PermanentError           ends the request as `failed`
├── RecordError                  a record on a topic cannot be read
│   ├── PartsMissingError        502  a streamed reply has ended, and parts of it are not in the log
│   └── PartsTooLargeError       502  a streamed reply has more bytes than are collected into one answer
├── ContractError                the author of a service must change its files
└── OperatorError                the operator must change something
    ├── SettingsError            the configuration
    ├── TopicError               a topic is missing or has the wrong shape
    └── EmbeddedKafkaError       the embedded Kafka cannot start
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Violation:
    """One place where a value does not fit a schema.

    Attributes:
        pointer: Where, as an RFC 6901 JSON Pointer; "" is the whole document.
        reason: What was found and what was wanted.
    """

    pointer: str
    reason: str


class BridgeError(Exception):
    """Anything the bridge raises on purpose.

    Attributes:
        code: Stable name of the problem, for programs; each has a row in docs/reference/errors.md.
        status: HTTP status that the ingress answers with.
        outcome: What is known about the request: `not_accepted`, `unknown`, `accepted`, `failed`,
            `expired` or `cancelled`.
        retryable: Whether the same request may succeed later, unchanged.
        retry_after_s: Seconds after which another try makes sense; None: not said.
    """

    code: ClassVar[str] = "internal-error"
    status: ClassVar[int] = 500
    outcome: ClassVar[str] = "unknown"
    retryable: ClassVar[bool] = False
    title: ClassVar[str] = "Internal error"
    retry_after_s: int | None = None


class CallerError(BridgeError):
    """The caller must change the request; nothing was written."""

    code = "bad-request"
    status = 400
    outcome = "not_accepted"
    title = "Bad request"


class MalformedBodyError(CallerError):
    """The body is not one JSON document in UTF-8 within the limits of depth and uniqueness."""

    code = "malformed-body"
    title = "The body is not acceptable JSON"

    def __init__(self, reason: str, pointer: str | None = None) -> None:
        super().__init__(reason)
        self.violations = () if pointer is None else (Violation(pointer, reason),)


class MalformedRequestError(CallerError):
    """The bytes are no HTTP/1.1, or two readers could take them for different requests."""

    code = "malformed-request"
    title = "No request that can be read in one way"


class MalformedHeaderError(CallerError):
    """A header that the bridge understands has a value that it does not."""

    code = "malformed-header"
    title = "A header has an unusable value"


class IdempotencyKeyMissingError(CallerError):
    """The service takes no request without an Idempotency-Key."""

    code = "idempotency-key-missing"
    title = "An Idempotency-Key is wanted"


class UnauthenticatedError(CallerError):
    """No API key was given, or none that is known; which of them exists is not told."""

    code = "unauthenticated"
    status = 401
    title = "An API key is needed"


class NotFoundError(CallerError):
    """No route has this path."""

    code = "not-found"
    status = 404
    title = "No such resource"


class UnknownServiceError(CallerError):
    """No contract of this name is loaded."""

    code = "unknown-service"
    status = 404
    title = "Unknown service"


class UnknownRequestError(CallerError):
    """The reply log holds no trace of this request ID."""

    code = "unknown-request"
    status = 404
    title = "Unknown request"


class MethodNotAllowedError(CallerError):
    """The route exists, but not with this method."""

    code = "method-not-allowed"
    status = 405
    title = "Method not allowed"


class NotAcceptableError(CallerError):
    """The client accepts none of the representations that exist."""

    code = "not-acceptable"
    status = 406
    title = "Not acceptable"


class AlreadyEndedError(CallerError):
    """The request cannot be cancelled any more; `state` is its end: `completed`, `failed`, `expired`."""

    code = "already-ended"
    status = 409
    outcome = "accepted"
    title = "The request has ended already"

    def __init__(self, state: str) -> None:
        super().__init__(f"it is {state}, so it cannot be cancelled: GET it for how it has ended")
        self.state = state


class RequestTimeoutError(CallerError):
    """The client was too slow in sending its request."""

    code = "request-timeout"
    status = 408
    retryable = True
    title = "The request was not here in time"


class GoneError(CallerError):
    """The request is older than the retention of its reply log."""

    code = "gone"
    status = 410
    outcome = "expired"
    title = "The result is no longer kept"


class BodyTooLargeError(CallerError):
    """The body, or the record made of it, is larger than what is taken."""

    code = "body-too-large"
    status = 413
    title = "Body too large"


class UriTooLongError(CallerError):
    """The request target is longer than the limit."""

    code = "uri-too-long"
    status = 414
    title = "URI too long"


class UnsupportedMediaTypeError(CallerError):
    """The body is neither JSON in UTF-8 nor Avro, or it has a Content-Encoding."""

    code = "unsupported-media-type"
    status = 415
    title = "Unsupported media type"


class InvalidPayloadError(CallerError):
    """The body can be read but does not fit the service's request schema."""

    code = "invalid-payload"
    status = 422
    title = "The body does not fit the contract"

    def __init__(self, violations: Sequence[Violation]) -> None:
        first = violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        super().__init__(f"{first.pointer or 'the document'}: {first.reason}{more}")
        self.violations = tuple(violations)


class IdempotencyKeyReusedError(CallerError):
    """The Idempotency-Key stands for a request with another body."""

    code = "idempotency-key-reused"
    status = 422
    title = "The Idempotency-Key was used for another body"


class HeadersTooLargeError(CallerError):
    """The header fields are larger than the limit."""

    code = "headers-too-large"
    status = 431
    title = "Header fields too large"


class UnavailableError(BridgeError):
    """Nothing was written; the caller may simply try again."""

    code = "unavailable"
    status = 503
    outcome = "not_accepted"
    retryable = True
    title = "Unavailable"
    retry_after_s = 1


class OverloadedError(UnavailableError):
    """A queue or a limit is full, or the answer would come too late; nothing was written."""

    code = "overloaded"
    title = "Overloaded"


class NoWorkersError(UnavailableError):
    """No worker of the service is there; nothing was written."""

    code = "no-workers"
    title = "No worker is there"


class DrainingError(UnavailableError):
    """This replica is stopping; another one takes the request."""

    code = "draining"
    title = "This replica is stopping"


class ClaimsAwayError(UnavailableError):
    """What Idempotency-Keys stand for cannot be read now; the request is not written."""

    code = "claims-away"
    title = "Idempotency-Keys cannot be checked now"
    retry_after_s = 2


class BrokerDownError(UnavailableError):
    """Kafka refused the record or could not be reached; surely not written."""

    code = "broker-down"
    title = "Kafka does not take the request"
    retry_after_s = 2


class OutcomeUnknownError(BridgeError):
    """The record may or may not be written; look the request up, or ask again."""

    code = "outcome-unknown"
    status = 503
    outcome = "unknown"
    retryable = True
    title = "It is not known whether the request was written"
    retry_after_s = 2


class HandlingError(BridgeError):
    """A handler's own word on a request.

    Args:
        message: For the client: what is wrong with the request.
        code: For programs: the handler's own name of the refusal; `[http.errors]` maps it.
        details: Further facts, as text.
    """

    code = "handler-failed"
    status = 502
    outcome = "failed"
    title = "The handler failed"

    def __init__(
        self, message: str = "", *, code: str | None = None, details: dict[str, str] | None = None
    ) -> None:
        super().__init__(message or self.title)
        self.failure_code = code or self.code
        self.details = details or {}


class RetryableError(HandlingError):
    """The same request may succeed later: it is tried again, up to its deadline.

    Args:
        message, code, details: As of every HandlingError; told when the attempts are used up.
        after_s: Seconds before which another try makes no sense; None: the back-off decides.
    """

    retryable = True

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        details: dict[str, str] | None = None,
        after_s: float | None = None,
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.after_s = after_s


class PermanentError(HandlingError):
    """The handler refuses the request: an answer, which ends the request as `failed`."""

    code = "refused"
    status = 422
    title = "The handler refused the request"


class RecordError(BridgeError):
    """A record on a topic cannot be read; retrying does not help."""

    code = "undecodable"
    status = 502
    outcome = "failed"
    title = "A record cannot be read"


class PartsMissingError(RecordError):
    """A streamed reply has ended, and of its `count` parts some (`missing`, or more) are not in the log."""

    code = "parts-missing"
    title = "Parts of the reply are missing"

    def __init__(self, missing: Sequence[int], count: int) -> None:
        named = ", ".join(str(number) for number in missing[:10])
        more = ", …" if len(missing) > 10 else ""  # noqa: PLR2004 - what a line holds
        super().__init__(f"of {count} parts these are not in the reply log: {named}{more}")


class PartsTooLargeError(RecordError):
    """A streamed reply is too large to be collected into one answer; as events it can be read."""

    code = "parts-too-large"
    title = "The reply is too large to be collected"


class ContractError(BridgeError):
    """The files of a service contradict themselves or ask for what does not exist."""

    code = "bad-contract"
    outcome = "not_accepted"
    title = "The contract cannot be loaded"


class OperatorError(BridgeError):
    """The operator must change something before the process can work."""

    code = "misconfigured"
    outcome = "not_accepted"
    title = "The bridge cannot start as configured"


class SettingsError(OperatorError):
    """The configuration is not usable."""


class TopicError(OperatorError):
    """A topic is missing or has another shape than the services need."""

    code = "topic-missing"
    status = 503
    title = "A topic is missing"


class EmbeddedKafkaError(OperatorError):
    """The embedded Kafka cannot start or has died."""
