"""How dead letters are printed: for people in lines, for programs as JSON.

What a letter says was written by others: it goes to a terminal without its control characters.
"""

import base64
from collections.abc import Iterable

from bridge.cli.times import format_time
from bridge.codec.document import render_json
from bridge.dead import PREFIX
from bridge.envelope import Headers, Record
from bridge.errors import RecordError
from bridge.redrive import Letter, State
from bridge.replay import Found, Outcome
from bridge.service import Service

_DUMPED_BYTES, _DUMP_WIDTH = 256, 16
_HEADS = ("TIME", "STATE", "REASON", "ATTEMPTS", "PLACE", "REQUEST", "ERROR")
COUNTED = {
    State.WAITING: "redriven",
    State.RESOLVED: "resolved",
    State.PARKED: "parked",
    State.REDRIVEN: "redriven_earlier",
    State.UNKNOWN: "unknown",
    State.UNREADABLE: "unreadable",
}
"""What a redrive counts, by the state in which it found a letter."""


def plain(text: str) -> str:
    """Write text on one line, without what a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def format_letters(
    letters: Iterable[tuple[Letter, State]], *, width: int | None, has_head: bool
) -> list[str]:
    """Write letters as lines with aligned columns.

    Args:
        letters: Each with its state.
        width: Columns of the terminal, for the error is cut there; None: it is not cut.
        has_head: Whether the columns are named first.
    """
    rows: list[tuple[str, ...]] = [_HEADS] if has_head else []
    rows += [_cells(letter, state) for letter, state in letters]
    widths = [max(len(row[column]) for row in rows) for column in range(6)] if rows else []
    lines = []
    for row in rows:
        line = "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[6]])
        is_long = width is not None and len(line) > width
        lines.append(f"{line[: (width or 1) - 1]}…" if is_long else line.rstrip())
    return lines


def as_json(letter: Letter, state: State) -> dict[str, object]:
    """Make what a program reads of one letter."""
    request = letter.request
    return {
        "time": format_time(letter.time_ms),
        "state": state.value,
        "reason": letter.verdict.reason,
        "error": letter.verdict.error,
        "attempts": letter.verdict.attempts,
        "partition": letter.partition,
        "offset": letter.offset,
        "request_id": letter.request_id,
        "generation": letter.generation,
        "replays": letter.replays,
        "copies": letter.copies,
        "principal": None if request is None else request.principal,
        "worker": letter.worker,
        "original": {
            "topic": letter.topic,
            "partition": letter.origin_partition,
            "offset": letter.origin_offset,
            "time": format_time(letter.origin_ms),
        },
    }


def format_found(found: Found, service: Service) -> list[str]:
    """Write one letter in full: why, where it was, its headers, and what it carries."""
    letter, record = found.letter, found.record
    verdict = letter.verdict
    place = f"{letter.topic}/{letter.origin_partition}/{letter.origin_offset}"
    lines = [
        f"request     {plain(letter.request_id)}",
        f"generation  {letter.generation} (the request has letters of {_listed(found.generations)})",
        f"place       {service.dead_topic}/{letter.partition}/{letter.offset}, {format_time(letter.time_ms)}",
        f"state       {found.state.value}, replayed {letter.replays} times before",
        f"reason      {plain(verdict.reason)}",
        f"error       {plain(verdict.error)}",
        f"attempts    {verdict.attempts}, by {plain(letter.worker)}",
        f"original    {plain(place)}, {format_time(letter.origin_ms)}",
        f"key         {_shown(record.key)}",
        *(f"header      {plain(name)}: {_shown(value)}" for name, value in _kept(record.headers)),
    ]
    if letter.trouble:
        lines.append(f"headers     cannot be used: {plain(letter.trouble)}")
    value, trouble = _decode(record, service)
    size = len(record.value or b"")
    if value is not None:
        return [*lines, f"value       {size} bytes:", plain(value.decode())]
    lines.append(f"value       {size} bytes, no request of {service.name}: {plain(trouble)}")
    return lines + format_dump((record.value or b"")[:_DUMPED_BYTES])


def found_as_json(found: Found, service: Service) -> bytes:
    """Make what a program reads of one letter in full."""
    record = found.record
    value, trouble = _decode(record, service)
    plain_value = service.decode(record.value) if value is not None else None
    return render_json(
        as_json(found.letter, found.state)
        | {
            "generations": found.generations,
            "key": _as_text(record.key),
            "headers": [[name, _as_text(content)] for name, content in _kept(record.headers)],
            "value": plain_value,
            "value_error": trouble or None,
            "value_bytes": len(record.value or b""),
        }
    )


def count(outcome: Outcome) -> dict[str, int]:
    """Count what became of the letters; the counts add up to `selected`."""
    counts = {name: outcome.count(state) for state, name in COUNTED.items()}
    counts["unreadable"] += outcome.others
    return {"selected": len(outcome.states) + outcome.others, **counts}


def format_dump(data: bytes) -> list[str]:
    """Write bytes as offset, hexadecimal and ASCII, 16 a line."""
    lines = []
    for start in range(0, len(data), _DUMP_WIDTH):
        piece = data[start : start + _DUMP_WIDTH]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)  # noqa: PLR2004 - printable ASCII
        lines.append(f"{start:08x}  {piece.hex(' '):<47}  {text}")
    return lines


def _cells(letter: Letter, state: State) -> tuple[str, ...]:
    marks = []
    if letter.generation:
        marks.append(f"generation {letter.generation}")
    if letter.copies > 1:
        marks.append(f"written {letter.copies} times")
    error = plain(letter.verdict.error)
    return (
        format_time(letter.time_ms),
        state.value,
        plain(letter.verdict.reason),
        str(letter.verdict.attempts),
        f"{letter.partition}/{letter.offset}",
        plain(letter.request_id),
        f"({', '.join(marks)}) {error}" if marks else error,
    )


def _decode(record: Record, service: Service) -> tuple[bytes | None, str]:
    """Read the value by the service's contract; None and the reason where it cannot be."""
    try:
        return render_json(service.decode(record.value)), ""
    except RecordError as error:
        return None, str(error)


def _kept(headers: Headers) -> Headers:
    """The headers that are not shown in words already."""
    return [(name, value) for name, value in headers if not name.startswith(PREFIX)]


def _as_text(content: bytes | None) -> str | dict[str, str] | None:
    """Text where it is, else `{"base64": …}`."""
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _shown(content: bytes | None) -> str:
    match _as_text(content):
        case None:
            return "none"
        case str() as text:
            return plain(text)
        case _:
            return f"0x{(content or b'').hex()}"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
