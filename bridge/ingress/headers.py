"""What a client's headers ask for; pure functions over header text."""

import re
from dataclasses import dataclass

from bridge.errors import (
    MalformedHeaderError,
    NotAcceptableError,
    UnsupportedMediaTypeError,
)

_DECIMAL = re.compile(r"\d{1,9}(\.\d{1,6})?\Z")
_JSON = re.compile(
    r"application/json\s*(;\s*charset=\"?(?P<charset>[^\";\s]+)\"?\s*)?\Z", re.IGNORECASE
)
_ACCEPTABLE = frozenset({"*/*", "application/*", "application/json", "application/problem+json"})

MAX_DEADLINE_S = 7 * 86_400.0
"""No deadline is further away: requests are kept for seven days by default."""


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
            f"{MAX_DEADLINE_S:.0f}, for example 2.5"
        )
    return float(text)


def check_content(content_type: str | None, encoding: str | None) -> None:
    """Accept JSON in UTF-8, not encoded further.

    Raises:
        UnsupportedMediaTypeError: Anything else.
    """
    if content_type != "application/json":
        match = _JSON.match(content_type or "")
        if match is None:
            raise UnsupportedMediaTypeError(
                f"Content-Type is {(content_type or 'absent')[:80]!r}: want application/json"
            )
        charset = match["charset"]
        if charset is not None and charset.lower() not in {"utf-8", "utf8"}:
            raise UnsupportedMediaTypeError(f"charset is {charset[:40]!r}: want utf-8 (RFC 8259)")
    if encoding is not None and encoding.strip().lower() != "identity":
        raise UnsupportedMediaTypeError(
            f"Content-Encoding is {encoding[:40]!r}: want the body as it is, not encoded"
        )


def check_accept(text: str | None) -> None:
    """Accept clients that take JSON.

    Raises:
        NotAcceptableError: `Accept` names only other media types.
    """
    if text is None or text == "*/*":
        return
    for item in text.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        refused = any(
            parameter in {"q=0", "q=0.0", "q=0.00", "q=0.000"} for parameter in parameters
        )
        if media in _ACCEPTABLE and not refused:
            return
    raise NotAcceptableError(f"Accept is {text[:80]!r}: answers are application/json")
