"""What `kbridge replay plan` is asked: its options, and what they mean."""

import getpass
import os
import re
import secrets
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from bridge import ids
from bridge.cli.times import parse_time
from bridge.ends import STATES
from bridge.errors import SettingsError
from bridge.plan import Mode
from bridge.replay import Asked, Bound
from bridge.service import Service
from bridge.where import Condition, check_path, parse_condition

ModeOption = Annotated[Mode, typer.Option(help="What for.")]
Start = Annotated[
    str | None,
    typer.Option("--from", help="From there on: an offset, ISO 8601, or -2h.", metavar="WHERE"),
]
To = Annotated[
    list[str] | None,
    typer.Option(help="To before there; with --mode copy also the topic.", metavar="WHERE"),
]
Partitions = Annotated[
    list[int] | None, typer.Option(min=0, help="Only this partition; may be said again.")
]
Key = Annotated[str | None, typer.Option(help="Only records with this key.")]
Headers = Annotated[
    list[str] | None,
    typer.Option(help="Only with this header; may be said again.", metavar="NAME=VALUE"),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        help="Only where this holds of the request; may be said again.", metavar="'FIELD OP VALUE'"
    ),
]
StateOption = Annotated[
    str | None, typer.Option(help=f"Only those that ended so: {', '.join(STATES)}.")
]
Dead = Annotated[
    str | None, typer.Option(help="Dead letters; with this reason.", metavar="[REASON]")
]
Ids = Annotated[
    Path | None,
    typer.Option("--ids", help="Only requests named in this file, one a line; - reads input."),
]
Sample = Annotated[int | None, typer.Option(min=1, help="Only so many of them, always the same.")]
Include = Annotated[
    bool, typer.Option("--include-replays", help="Also copies that a replay has written.")
]
Known = Annotated[
    bool, typer.Option("--known-only", help="Leave out what nothing is known of any more.")
]
Answer = Annotated[bool, typer.Option("--answer", help="Answer where the originals were answered.")]
Rate = Annotated[float | None, typer.Option(min=0.001, help="At most so many records a second.")]

_OFFSET = re.compile(r"\d{1,18}\Z")
_ANY = "any"
"""What `--dead` says without a reason."""


class PlanCommand(TyperCommand):
    """A command whose `--dead` may stand alone or have a reason."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write `--dead` without a reason as `--dead=any`."""
        is_alone = [
            word == "--dead" and (not rest or rest[0].startswith("-"))
            for word, rest in ((word, args[n + 1 : n + 2]) for n, word in enumerate(args))
        ]
        words = [
            f"--dead={_ANY}" if alone else word for word, alone in zip(args, is_alone, strict=True)
        ]
        return super().parse_args(ctx, words)


def read_asked(
    contracts: Mapping[str, Service],
    name: str,
    options: Mapping[str, Any],
    *,
    now: int,
    by: str,
) -> Asked:
    """Read the options of a plan.

    Raises:
        typer.BadParameter: They mean nothing, or contradict each other.
        SettingsError: A file cannot be read.
    """
    mode, dead, contract = options["mode"], options["dead"], contracts[name]
    until, target = _split_to(options["to"] or [], mode, now)
    is_dead = dead is not None or mode is Mode.REDRIVE
    _check(mode, state=options["state"], is_dead=is_dead, answers=options["answer"], target=target)
    file = options["ids_file"]
    return Asked(
        replay_id=ids.make(time_ms=now, lane=0, chance=secrets.randbits(62)),
        mode=mode,
        start=Bound() if options["start"] is None else _bound(options["start"], now),
        end=until,
        partitions=options["partition"] or None,
        key=None if options["key"] is None else options["key"].encode(),
        headers=tuple(_header(text) for text in options["header"] or ()),
        where=tuple(_condition(text, contract) for text in options["where"] or ()),
        state=options["state"],
        is_dead=is_dead,
        reason=None if dead in (None, _ANY) else dead,
        ids=None if file is None else _read_ids(file),
        sample=options["sample"],
        takes_replays=options["include_replays"],
        is_known_only=options["known_only"],
        answers=options["answer"] or mode is Mode.REDRIVE,
        target=target,
        reserved=frozenset(topic for each in contracts.values() for topic in _topics_of(each)),
        rate=options["rate"],
        by=by,
        said=_said(options),
    )


def _check(
    mode: Mode, *, state: str | None, is_dead: bool, answers: bool, target: str | None
) -> None:
    """Refuse options that contradict each other.

    Raises:
        typer.BadParameter: They do.
    """
    if state not in (None, *STATES):
        raise typer.BadParameter(f"--state {state}: want one of {', '.join(STATES)}")
    if state is not None and is_dead:
        raise typer.BadParameter("--state is for requests, and dead letters have all failed")
    if mode is Mode.VERIFY and is_dead:
        raise typer.BadParameter("--mode verify compares with answers, and dead letters have none")
    if answers and mode is not Mode.REPROCESS:
        raise typer.BadParameter("--answer is for --mode reprocess")
    if (mode is Mode.COPY) != (target is not None):
        raise typer.BadParameter("--mode copy wants --to TOPIC, and no other mode takes one")


def _split_to(said: Sequence[str], mode: Mode, now: int) -> tuple[Bound, str | None]:
    """Tell where a range ends from where copies go: what is no offset and no time is a topic."""
    bound, target = Bound(), None
    for text in said:
        try:
            found = _read_bound(text, now)
        except ValueError as wrong:
            if mode is not Mode.COPY or target is not None:
                raise typer.BadParameter(f"--to: {wrong}") from None
            target = text
        else:
            if bound != Bound():
                raise typer.BadParameter("--to: the range has one end: want one")
            bound = found
    return bound, target


def _bound(text: str, now: int) -> Bound:
    try:
        return _read_bound(text, now)
    except ValueError as wrong:
        raise typer.BadParameter(f"--from: {wrong}") from None


def _read_bound(text: str, now: int) -> Bound:
    if _OFFSET.match(text):
        return Bound(offset=int(text))
    try:
        return Bound(time_ms=parse_time(text, now_ms=now))
    except ValueError as wrong:
        raise ValueError(f"{wrong}; or an offset, as 1000") from None


def _header(text: str) -> tuple[str, bytes]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f"--header {text}: want name=value")
    return name, value.encode()


def _condition(text: str, service: Service) -> Condition:
    try:
        condition = parse_condition(text)
        check_path(condition, service.request)
    except ValueError as wrong:
        raise typer.BadParameter(f"--where: {wrong}") from None
    return condition


def _read_ids(file: Path) -> frozenset[str]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from None
    found = frozenset(ids.normalize(line) for line in map(str.strip, text.splitlines()) if line)
    if not found:
        raise SettingsError(f"{file} names no request: want one ID a line")
    return found


def _topics_of(service: Service) -> tuple[str, ...]:
    return (
        service.requests_topic,
        service.replies_topic,
        service.dead_topic,
        service.replay_topic,
        service.replay_replies_topic,
    )


def _said(options: Mapping[str, Any]) -> dict[str, object]:
    """Tell what was said, in words that JSON has."""
    given = {name: each for name, each in options.items() if each not in (None, False, [])}
    return {
        {"start": "from", "ids_file": "ids"}.get(name, name): str(each)
        if isinstance(each, Path)
        else each
        for name, each in given.items()
        if name not in {"mode", "rate", "answer"}
    }


def whoami() -> str:
    """Name who plans or runs, for people."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may know no name for its user
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
