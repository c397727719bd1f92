"""Every error the bridge raises, by who must act on it.

BridgeError
├── CallerError                  the caller must change the request
│   ├── MalformedBodyError       400  not JSON, not UTF-8, too deep, a member twice
│   ├── MalformedHeaderError     400  a header we understand has a value we do not
│   ├── NotFoundError            404  no such route
│   ├── UnknownServiceError      404  no contract of that name
│   ├── UnknownRequestError      404  no trace of that request ID
│   ├── MethodNotAllowedError    405  the route exists, not with that method
│   ├── NotAcceptableError       406  no representation that the client accepts
│   ├── GoneError                410  the reply log is past its retention
│   ├── BodyTooLargeError        413  more bytes than the ingress or Kafka takes
│   ├── UriTooLongError          414  a request target beyond the limit
│   ├── UnsupportedMediaTypeError 415 not JSON in UTF-8, or an encoded body
│   ├── InvalidPayloadError      422  JSON, but not what the service's schema asks for
│   └── HeadersTooLargeError     431  more header bytes than the limit
├── UnavailableError             nothing was written; the caller may simply try again
│   ├── OverloadedError          503  a queue or a limit is full
│   ├── DrainingError            503  this replica is stopping
│   └── BrokerDownError          503  Kafka refused or could not be reached
├── OutcomeUnknownError          503  may or may not be written; look it up, or ask again
├── HandlingError                the worker's handler said no
│   ├── RetryableError           the same request may succeed later
│   └── PermanentError           ends the request as `failed`
├── RecordError                  a record on a topic cannot be read
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


class MalformedHeaderError(CallerError):
    """A header that the bridge understands has a value that it does not."""

    code = "malformed-header"
    title = "A header has an unusable value"


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
    """The body is not `application/json` in UTF-8 without a Content-Encoding."""

    code = "unsupported-media-type"
    status = 415
    title = "Unsupported media type"


class InvalidPayloadError(CallerError):
    """The body is JSON but does not fit the service's request schema."""

    code = "invalid-payload"
    status = 422
    title = "The body does not fit the contract"

    def __init__(self, violations: Sequence[Violation]) -> None:
        first = violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        super().__init__(f"{first.pointer or 'the document'}: {first.reason}{more}")
        self.violations = tuple(violations)


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
    """A queue or a limit is full; nothing was written."""

    code = "overloaded"
    title = "Overloaded"


class DrainingError(UnavailableError):
    """This replica is stopping; another one takes the request."""

    code = "draining"
    title = "This replica is stopping"


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
    """The same request may succeed later."""

    code = "handler-failed"
    retryable = True


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
