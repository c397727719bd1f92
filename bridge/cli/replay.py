"""The commands for replays: what they take, and what they print."""

import asyncio
import json
from typing import Annotated

import typer

from bridge.cli import asking
from bridge.cli import replays as replays_
from bridge.cli.asking import PlanCommand, whoami
from bridge.cli.options import Json, Kafka, Schemas, load_contracts, load_settings
from bridge.cli.processes import now_ms
from bridge.cli.progress import progress
from bridge.plan import Mode
from bridge.replay import make_plan, read_replays, say
from bridge.replays import State, format_plan

replay = typer.Typer(
    help="Do recorded requests again: planned, once, and without touching what was answered.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="The service.", metavar="SERVICE")]
Id = Annotated[str, typer.Argument(help="The replay.", metavar="ID")]

_ELSEWHERE = ("service", "kafka", "schemas", "as_json")
"""Parameters that say nothing of which records are meant."""


@replay.command("plan", cls=PlanCommand)
def replay_plan(  # noqa: PLR0913 - one parameter for each option
    service: Name,
    *,
    mode: asking.ModeOption = Mode.REPROCESS,
    start: asking.Start = None,
    to: asking.To = None,
    partition: asking.Partitions = None,
    key: asking.Key = None,
    header: asking.Headers = None,
    where: asking.Where = None,
    state: asking.StateOption = None,
    dead: asking.Dead = None,
    ids_file: asking.Ids = None,
    sample: asking.Sample = None,
    include_replays: asking.Include = False,
    known_only: asking.Known = False,
    answer: asking.Answer = False,
    rate: asking.Rate = None,
    kafka: Kafka = None,
    schemas: Schemas = None,
    as_json: Json = False,
) -> None:
    """Plan a replay: find the records, count them, and write nothing but the plan.

    Example: kbridge replay plan greeter --from -2h --where 'name = Ann'
    """
    options = {name: each for name, each in locals().items() if name not in _ELSEWHERE}
    settings = load_settings(is_quiet=True, kafka=kafka, schemas=schemas)
    contracts = load_contracts(settings)
    if service not in contracts:
        raise typer.BadParameter(
            f"no service {service} in {settings.schemas}: there are {', '.join(contracts)}"
        )
    now = now_ms()
    asked = asking.read_asked(contracts, service, options, now=now, by=whoami())
    config = settings.client_config()
    with progress() as told:
        made = asyncio.run(make_plan(config, contracts[service], asked, now_ms=now, told=told))
        asyncio.run(say(config, format_plan(made)))
    if as_json:
        typer.echo(json.dumps(replays_.as_json(made, State.PLANNED, {})))
        return
    for line in replays_.format_plan(made, State.PLANNED, {}):
        typer.echo(line)


@replay.command("list")
def replay_list(
    service: Annotated[
        str | None, typer.Argument(help="Only this service's.", metavar="[SERVICE]")
    ] = None,
    kafka: Kafka = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line, for programs.")
    ] = False,
) -> None:
    """List replays, a line each, the newest last.

    Example: kbridge replay list greeter
    """
    settings = load_settings(is_quiet=True, kafka=kafka)
    with progress():
        found = asyncio.run(read_replays(settings.client_config()))
    for plan in sorted(found.plans.values(), key=lambda each: (each.at_ms, each.id)):
        if service not in (None, plan.service):
            continue
        how = replays_.shown(found, plan, now_ms())
        if as_json:
            typer.echo(json.dumps(replays_.as_json(plan, *how)))
        else:
            typer.echo(replays_.format_line(plan, *how))


@replay.command("show")
def replay_show(replay_id: Id, kafka: Kafka = None, as_json: Json = False) -> None:
    """Show one replay: what was planned, and how far it is.

    Example: kbridge replay show 01998d5e-7c1a-7000-9f3b-0c7f6a1d2e3f
    """
    settings = load_settings(is_quiet=True, kafka=kafka)
    with progress():
        found = asyncio.run(read_replays(settings.client_config()))
    plan = found.find(replay_id)
    how = replays_.shown(found, plan, now_ms())
    if as_json:
        typer.echo(json.dumps(replays_.as_json(plan, *how)))
        return
    for line in replays_.format_plan(plan, *how):
        typer.echo(line)
