"""The commands for dead letters: what they take, and what they print."""

import asyncio
import json
import re
import secrets
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from bridge import ids
from bridge.cli import letters as letters_
from bridge.cli.options import Json, Kafka, Schemas, load_contract, load_settings
from bridge.cli.processes import now_ms
from bridge.cli.progress import progress
from bridge.cli.times import parse_time
from bridge.errors import SettingsError, UnknownRequestError
from bridge.redrive import Letter, Letters, State, select
from bridge.replay import Order, Outcome, find_letter, read_letters
from bridge.replay import redrive as redrive_
from bridge.service import Service

dead = typer.Typer(help="List, show and redrive dead letters.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The service.", metavar="SERVICE")]
Reason = Annotated[str | None, typer.Option(help="Only those with this reason.")]

_PLACE = re.compile(r"(\d{1,9})/(\d{1,18})\Z")


@dead.command("list")
def dead_list(  # noqa: PLR0913 - one parameter for each option
    service: Name,
    *,
    reason: Reason = None,
    since: Annotated[
        str | None, typer.Option(help="Only from this time on: ISO 8601, or -2h.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only from before this time: ISO 8601, or -2h.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the newest so many.")] = None,
    kafka: Kafka = None,
    schemas: Schemas = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line, for programs.")
    ] = False,
) -> None:
    """List the dead letters of a service, one line for each request and generation, newest last.

    Example: kbridge dead list greeter --since -2h
    """
    now = now_ms()
    start, end = _time(since, now), _time(until, now)
    settings = load_settings(is_quiet=True, kafka=kafka, schemas=schemas)
    contract = load_contract(settings, service)
    with progress() as told:
        found = asyncio.run(read_letters(settings.client_config(), contract, told))
    listed = [
        letter
        for letter in select(found.in_order(), reason=reason)
        if (start is None or letter.time_ms >= start) and (end is None or letter.time_ms < end)
    ]
    shown = [(letter, found.decide(letter)) for letter in listed[-limit if limit else None :]]
    if as_json:
        for letter, state in shown:
            typer.echo(json.dumps(letters_.as_json(letter, state)))
        return
    _print_letters(shown)
    typer.echo(_summary(contract, found, len(listed), len(shown)), err=True)


@dead.command("show")
def dead_show(
    service: Name,
    which: Annotated[
        str, typer.Argument(help="A request ID, or PARTITION/OFFSET.", metavar="REQUEST")
    ],
    *,
    raw: Annotated[
        Path | None, typer.Option(help="Write the value's bytes to this file instead.")
    ] = None,
    kafka: Kafka = None,
    schemas: Schemas = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter: why it is one, where it was, its headers, and what it carries.

    Example: kbridge dead show greeter 3/17
    """
    settings = load_settings(is_quiet=True, kafka=kafka, schemas=schemas)
    contract = load_contract(settings, service)
    place = _PLACE.match(which)
    wanted = which if place is None else (int(place[1]), int(place[2]))
    with progress() as told:
        found = asyncio.run(find_letter(settings.client_config(), contract, wanted, told))
    if raw is not None:
        _write(raw, found.record.value)
    elif as_json:
        typer.echo(letters_.found_as_json(found, contract).decode())
    else:
        for line in letters_.format_found(found, contract):
            typer.echo(line)


@dead.command("redrive")
def dead_redrive(  # noqa: PLR0913 - one parameter for each option
    service: Name,
    *,
    request_id: Annotated[str | None, typer.Option("--id", help="This request's.")] = None,
    reason: Reason = None,
    is_all: Annotated[bool, typer.Option("--all", help="All of the service.")] = False,
    is_dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")
    ] = False,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="At most so many records a second.")
    ] = None,
    include_unknown: Annotated[
        bool,
        typer.Option(
            "--include-unknown",
            help="Also those that are older than the record of what was redriven.",
        ),
    ] = False,
    allow_effects: Annotated[
        bool, typer.Option("--allow-effects", help='For a service with effects = "external".')
    ] = False,
    kafka: Kafka = None,
    schemas: Schemas = None,
    as_json: Json = False,
) -> None:
    """Give dead letters back to the workers: one by --id, by --reason, or --all.

    Example: kbridge dead redrive greeter --reason attempts-exhausted --dry-run
    """
    if (request_id is not None) + (reason is not None) + is_all != 1:
        raise typer.BadParameter("say which: one of --id, --reason and --all")
    settings = load_settings(is_quiet=True, kafka=kafka, schemas=schemas)
    contract = load_contract(settings, service)
    if not (allow_effects or is_dry):
        _check_effects(contract)
    order = Order(
        request_id=request_id,
        reason=reason,
        replay_id=ids.make(time_ms=now_ms(), lane=0, chance=secrets.randbits(62)),
        is_dry=is_dry,
        is_unknown_taken=include_unknown,
        rate=rate,
    )
    with progress() as told:
        outcome = asyncio.run(
            redrive_(settings.client_config(), contract, order, own_ms=now_ms, told=told)
        )
    _print_outcome(order, contract, outcome, as_json=as_json)


def _check_effects(service: Service) -> None:
    if service.effects == "external":
        raise SettingsError(
            f'{service.name} has effects = "external": what its handler does outside would be done '
            "again; want --allow-effects"
        )


def _print_letters(shown: list[tuple[Letter, State]]) -> None:
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else None
    for line in letters_.format_letters(shown, width=width, has_head=is_terminal and bool(shown)):
        typer.echo(line)


def _summary(service: Service, found: Letters, listed: int, shown: int) -> str:
    summary = f"{shown} of {listed} dead letters of {service.name}"
    if shown == listed:
        summary = f"{listed} dead letters of {service.name}"
    return (
        f"{summary}; {found.others} other records in {service.dead_topic}"
        if found.others
        else summary
    )


def _print_outcome(order: Order, service: Service, outcome: Outcome, *, as_json: bool) -> None:
    counts = letters_.count(outcome)
    if as_json:
        report: dict[str, object] = {
            "service": service.name,
            "replay_id": None if order.is_dry else order.replay_id,
            "dry_run": order.is_dry,
            **counts,
        }
        if order.is_dry:
            report["letters"] = [
                letters_.as_json(letter, state) for letter, state in outcome.states
            ]
        typer.echo(json.dumps(report))
        return
    if order.is_dry:
        _print_letters(outcome.states)
    words = ", ".join(
        f"{name.replace('_', ' ')} {number}"
        for name, number in counts.items()
        if name != "selected"
    )
    doing = "nothing written; would be: " if order.is_dry else ""
    typer.echo(f"{doing}{words}")
    if counts["unknown"]:
        typer.echo(
            f"{counts['unknown']} are older than {service.replay_topic} goes back, so nothing says "
            "whether they were redriven before: --include-unknown takes them too",
            err=True,
        )


def _time(text: str | None, now: int) -> int | None:
    try:
        return None if text is None else parse_time(text, now_ms=now)
    except ValueError as wrong:
        raise typer.BadParameter(str(wrong)) from None


def _write(file: Path, value: bytes | None) -> None:
    if value is None:
        raise UnknownRequestError("the dead letter has no value: there is nothing to write")
    try:
        file.write_bytes(value)
    except OSError as error:
        raise SettingsError(f"{file} cannot be written: {error.strerror}") from None
    typer.echo(f"wrote {len(value)} bytes to {file}")
