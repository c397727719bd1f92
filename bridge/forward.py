"""Headers that a service lets through: from HTTP onto its requests, and from its replies to HTTP.

Nothing goes through that the service's author has not named, and some things cannot be named: what
carries credentials, what belongs to one connection or one body, and what this bridge, Kafka's other
clients or a browser would take for an instruction. Values are printable ASCII, both ways: what could
end a line ends nothing here. Pure.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from bridge.envelope import Headers
from bridge.errors import MalformedHeaderError

MAX_NAMES = 32
MAX_VALUE_BYTES = 4096
"""Half of what nginx takes for a header line (large_client_header_buffers, 8k)."""

_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,100}\Z")  # a token (RFC 9110, 5.6.2), in lower case
_VALUE = re.compile(r"[\t\x20-\x7e]*\Z")
_PREFIXES = ("bridge-", "x-bridge-", "kafka_", "spring_", "content-", "proxy-", "sec-")
_RESERVED = frozenset(
    {
        *("authorization", "cookie", "cookie2", "set-cookie", "set-cookie2"),
        *("www-authenticate", "authentication-info"),
        *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"),
        *("host", "location", "date", "server", "traceparent", "tracestate"),
    }
)
_SPOKEN = frozenset(
    {
        *("request-id", "retry-after", "preference-applied", "idempotency-replayed", "allow"),
        *("cache-control", "vary", "etag", "age", "expires", "last-modified"),
        *("strict-transport-security", "clear-site-data", "refresh", "alt-svc", "link"),
    }
)
"""Written by the bridge itself, or read by browsers and caches as an instruction."""
_SPOKEN_PREFIX = "access-control-"


def check_forwarded(name: str) -> str:
    """Return the name of a request header that may go to the worker.

    Raises:
        ValueError: It may not, or it is none; the message says which.
    """
    if _NAME.match(name) is None:
        raise ValueError("want the name of an HTTP header, in lower case, at most 100 characters")
    if name in _RESERVED or name.startswith(_PREFIXES):
        raise ValueError(
            "this header is never passed on: it carries credentials, belongs to one connection or "
            "body, or is the bridge's or Kafka's own"
        )
    return name


def check_returned(name: str) -> str:
    """Return the name of a header that a reply may set on the HTTP response.

    Raises:
        ValueError: It may not, or it is none; the message says which.
    """
    check_forwarded(name)
    if name in _SPOKEN or name.startswith(_SPOKEN_PREFIX):
        raise ValueError(
            "no reply may set this header: the bridge writes it itself, or browsers and caches "
            "follow it"
        )
    return name


def check_list(names: list[str]) -> list[str]:
    """Return a list of names, each of them once.

    Raises:
        ValueError: One is there twice, or they are more than 32.
    """
    if len(set(names)) != len(names):
        raise ValueError("a name is there twice")
    if len(names) > MAX_NAMES:
        raise ValueError(f"there are {len(names)} names: want at most {MAX_NAMES}")
    return names


def find_fault(value: object) -> str | None:
    """Say why a value cannot go through; None: it can."""
    if not isinstance(value, str):
        return f"it is a {type(value).__name__}: want text"
    if len(value) > MAX_VALUE_BYTES:
        return f"it has {len(value)} bytes: want at most {MAX_VALUE_BYTES}"
    if _VALUE.match(value) is None:
        return "it has characters that are not printable ASCII"
    return None


def take_request(names: Sequence[str], headers: Mapping[str, str]) -> tuple[tuple[str, bytes], ...]:
    """Pick a client's headers that go onto the record.

    Raises:
        MalformedHeaderError: One has a value that cannot.
    """
    for name in names:
        fault = find_fault(headers.get(name, ""))
        if fault is not None:
            raise MalformedHeaderError(f"{name}: {fault}")
    return tuple((name, headers[name].encode()) for name in names if name in headers)


def read_record(names: Sequence[str], headers: Headers) -> dict[str, str]:
    """Pick the named headers of a record, as text; of a repeated one the last counts.

    A value that cannot go through is left out: a program of another kind has written it.
    """
    found = {name: value for name, value in headers if name in names and value is not None}
    texts = {name: value.decode("latin-1") for name, value in found.items()}
    return {name: text for name, text in texts.items() if find_fault(text) is None}


def take_reply(
    names: Sequence[str], said: Iterable[tuple[object, object]]
) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Pick what a handler said that goes onto its reply.

    Returns:
        The headers, and a sentence for each that was left out.
    """
    taken: list[tuple[str, bytes]] = []
    dropped: list[str] = []
    for name, value in said:
        fault = find_fault(value)
        if not isinstance(name, str) or name.lower() not in names:
            dropped.append(f"{str(name)[:100]!r} is not in http.return")
        elif fault is not None:
            dropped.append(f"{name}: {fault}")
        else:
            taken.append((name.lower(), str(value).encode()))
    return taken, dropped
