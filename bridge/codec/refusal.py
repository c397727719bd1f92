"""How a value is refused: violations that gather their pointer on the way out.

A reader deep in a value knows what is wrong, not where it is. It raises with the pointer ""; each
container that the refusal passes puts its own step in front. So the accepted path, which is the
hot path of the ingress, carries no pointers at all.
"""

from collections.abc import Iterable, Iterator

from bridge.errors import InvalidPayloadError, Violation

MAX_VIOLATIONS = 20
"""Enough to mend a form in one go, few enough for an answer of a few kilobytes."""

_SHOWN = 40  # characters of a client's own value that a message repeats
_LONG_BITS = 128  # Python refuses to write numbers of more than 4,300 digits
_STEP = 256  # characters of a client's own member name that a pointer repeats


def refuse(reason: str) -> InvalidPayloadError:
    """Make the refusal of a whole value, to be raised."""
    return InvalidPayloadError((Violation("", reason),))


def refuse_all(violations: list[Violation]) -> InvalidPayloadError:
    """Make the refusal of a value with several faults, to be raised."""
    return InvalidPayloadError(violations[:MAX_VIOLATIONS])


def beneath(step: object, violations: Iterable[Violation]) -> Iterator[Violation]:
    """Put a member's name or an item's index in front of violations found within it."""
    prefix = pointer_step(step)
    return (Violation(prefix + found.pointer, found.reason) for found in violations)


def pointer_step(step: object) -> str:
    """Write one step of an RFC 6901 pointer.

    A step that cannot be a field's name is bounded: a key of a megabyte around twenty violations
    would be twenty megabytes of answer. What UTF-8 cannot say (a handler's key) is escaped.
    """
    text = str(step).encode(errors="backslashreplace").decode()
    text = text if len(text) <= _STEP else f"{text[:_STEP]}…"
    return "/" + text.replace("~", "~0").replace("/", "~1")


def describe(value: object) -> str:  # noqa: PLR0911 - a case for each kind of value
    """Say what was found, in JSON's words, shortened."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() if value.bit_length() > _LONG_BITS:
            return f"a number of {value.bit_length()} bits"
        case int() | float():
            return f"the number {value!r}"
        case str():
            return f"the text {_short(ascii(value[: _SHOWN + 1]))}"
        case list() | tuple():
            return "an array"
        case dict():
            return "an object"
        case _:
            return f"a {type(value).__name__}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
