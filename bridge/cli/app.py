"""The commands of `kbridge`: what they take, and what `--help` says."""

import asyncio
import json
import os
import secrets
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from bridge import apikey
from bridge.cli import processes as processes_
from bridge.cli.dead import dead
from bridge.cli.dev import Dev, run_dev, run_kafka
from bridge.cli.handlers import Chosen
from bridge.cli.options import Json, Kafka, Schemas, load_contracts, load_settings
from bridge.cli.replay import replay
from bridge.cli.topics import shapes_of
from bridge.errors import TopicError
from bridge.kafka import apply_topics, check_topics
from bridge.settings import is_set

app = typer.Typer(
    name="kbridge",
    help="HTTP to containers that open no port: requests and replies as durable records on Kafka.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
topics = typer.Typer(
    help="Make, or verify, the topics that the services need.", no_args_is_help=True
)
app.add_typer(topics, name="topics")
keys = typer.Typer(help="Make API keys.", no_args_is_help=True)
app.add_typer(keys, name="keys")
app.add_typer(dead, name="dead")
app.add_typer(replay, name="replay")

Port = Annotated[
    int | None, typer.Option(help="TCP port of the ingress; 0 picks one (BRIDGE_PORT).")
]
Data = Annotated[Path, typer.Option(help="Folder that keeps the topics.")]
Processes = Annotated[
    int | None, typer.Option(help="Ingress processes that share the port (BRIDGE_PROCESSES).")
]


def _print_version(*, is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"kbridge {version('kafka-bridge')}")
        raise typer.Exit


@app.callback()
def _root(
    is_asked: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=lambda v: _print_version(is_asked=v),
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    del is_asked


@app.command()
def dev(
    port: Port = None,
    processes: Processes = None,
    data: Data = Path(".bridge"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Empty the data folder first.")] = False,
    kafka_port: Annotated[int, typer.Option(help="TCP port of the embedded Kafka.")] = 9092,
    kafka: Kafka = None,
) -> None:
    """Run everything on this machine: Kafka, topics, an ingress, a worker per service.

    Example: kbridge dev --port 8080
    """
    settings = load_settings(port=port, processes=processes, kafka=kafka)
    plan = Dev(
        settings=settings,
        services=load_contracts(settings),
        data=data,
        is_fresh=fresh,
        kafka_port=None if kafka or is_set("kafka", os.environ) else kafka_port,
    )
    asyncio.run(run_dev(plan, Console(highlight=False, soft_wrap=True)))


@app.command("kafka")
def kafka_alone(
    port: Annotated[int, typer.Option(help="TCP port of the first node.")] = 9092,
    nodes: Annotated[int, typer.Option(min=1, max=3, help="Brokers: 1 or 3.")] = 1,
    data: Data = Path(".bridge"),
) -> None:
    """Run the embedded Kafka alone: a real Apache Kafka from pip packages.

    Example: kbridge kafka --nodes 3
    """
    load_settings()
    asyncio.run(run_kafka(port, nodes, data, Console(highlight=False, soft_wrap=True)))


@app.command()
def ingress(
    host: Annotated[str | None, typer.Option(help="Address to listen on (BRIDGE_HOST).")] = None,
    port: Port = None,
    processes: Processes = None,
    kafka: Kafka = None,
    schemas: Schemas = None,
    socket_fd: Annotated[int | None, typer.Option("--socket-fd", hidden=True)] = None,
) -> None:
    """Run an ingress: HTTP on one side, Kafka on the other.

    Example: kbridge ingress --host 0.0.0.0 --port 8080 --kafka kafka:9092
    """
    settings = load_settings(
        host=host, port=port, processes=processes, kafka=kafka, schemas=schemas
    )
    processes_.run_ingresses(settings, load_contracts(settings), socket_fd)


@app.command()
def worker(  # noqa: PLR0913, PLR0917 - each is an option
    services: Annotated[
        list[str], typer.Argument(help="Services to work for.", metavar="SERVICE...")
    ],
    handler: Annotated[
        str | None,
        typer.Option(help="module:function; default consumers.SERVICE:handle."),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Forward requests to this HTTP server, in place of code."),
    ] = None,
    admin_port: Annotated[
        int | None,
        typer.Option(help="TCP port for health, metrics, pausing; 0: none (BRIDGE_ADMIN_PORT)."),
    ] = None,
    program: Annotated[
        str | None,
        typer.Option("--exec", help="A program as handler: JSON lines in and out.", metavar="TEXT"),
    ] = None,
    exec_processes: Annotated[
        int, typer.Option("--exec-processes", min=1, max=1000, help="Copies of that program.")
    ] = 1,
    exec_once: Annotated[
        bool, typer.Option("--exec-once", help="Start that program anew for each request.")
    ] = False,
    kafka: Kafka = None,
    schemas: Schemas = None,
) -> None:
    """Run a worker: takes requests of services, runs their handlers, answers.

    It opens no port unless told to, by --admin-port.

    Example: kbridge worker greeter --kafka kafka:9092
    """
    settings = load_settings(kafka=kafka, schemas=schemas, admin_port=admin_port)
    known = load_contracts(settings)
    unknown = [name for name in services if name not in known]
    if unknown:
        raise typer.BadParameter(
            f"no service {', '.join(unknown)} in {settings.schemas}: there are {', '.join(known)}"
        )
    chosen = Chosen(
        where=handler, http=http, command=program, processes=exec_processes, is_once=exec_once
    )
    _check_chosen(chosen, len(services))
    uvloop.run(processes_.run_workers(settings, [known[name] for name in services], chosen))


def _check_chosen(chosen: Chosen, services: int) -> None:
    """Refuse options that contradict each other.

    Raises:
        typer.BadParameter: They do.
    """
    ways = (("handler", chosen.where), ("http", chosen.http), ("exec", chosen.command))
    given = [f"--{way}" for way, value in ways if value]
    if len(given) > 1:
        raise typer.BadParameter(f"{' and '.join(given)}: want one of them")
    if given and services > 1:
        raise typer.BadParameter(f"{given[0]} is for one service: run one worker for each")
    if chosen.command is None and (chosen.is_once or chosen.processes > 1):
        raise typer.BadParameter("--exec-once and --exec-processes want --exec 'program args'")
    if chosen.is_once and chosen.processes > 1:
        raise typer.BadParameter("--exec-once starts a program per request: no --exec-processes")


@keys.command("new")
def keys_new(
    principal: Annotated[
        str, typer.Argument(help="Whom the key stands for: A-Z a-z 0-9 . _ @ : / + -")
    ],
    as_json: Json = False,
) -> None:
    """Make an API key, shown this once, and the line for the file that BRIDGE_API_KEYS_FILE names.

    Example: kbridge keys new billing
    """
    made = apikey.make(
        principal,
        key_id=secrets.token_hex(4),
        secret=secrets.token_bytes(apikey.SECRET_BYTES),
    )
    if as_json:
        typer.echo(json.dumps({"key": made.key, "line": made.line}))
        return
    typer.echo(f"key, for {principal}, shown this once:\n{made.key}")
    typer.echo(f"line, for the file that BRIDGE_API_KEYS_FILE names:\n{made.line}")


@topics.command("apply")
def topics_apply(kafka: Kafka = None, schemas: Schemas = None, as_json: Json = False) -> None:
    """Create the topics that are missing; those that exist are left alone.

    Example: kbridge topics apply --kafka kafka:9092
    """
    settings = load_settings(is_quiet=True, kafka=kafka, schemas=schemas)
    shapes = shapes_of(load_contracts(settings))
    made = asyncio.run(apply_topics(settings.client_config(), shapes))
    if as_json:
        typer.echo(json.dumps({"topics": [shape.name for shape in shapes], "created": made}))
        return
    for name in made:
        typer.echo(f"created {name}")
    typer.echo(f"{len(shapes)} topics are there, {len(made)} of them new")


@topics.command("check")
def topics_check(kafka: Kafka = None, schemas: Schemas = None, as_json: Json = False) -> None:
    """Compare the topics with what the services need, and say which promise does not hold.

    Exit 1 when a topic is missing, or has another number of partitions, clean-up or kind of time.

    Example: kbridge topics check
    """
    settings = load_settings(is_quiet=True, kafka=kafka, schemas=schemas)
    report = asyncio.run(
        check_topics(settings.client_config(), shapes_of(load_contracts(settings)))
    )
    if as_json:
        typer.echo(json.dumps({"wrong": report.wrong, "warnings": report.warnings}))
    else:
        for line in (*report.wrong, *report.warnings):
            typer.echo(line)
    if report.wrong:
        raise TopicError(f"{len(report.wrong)} topic(s) are not as the services need them")
    if not as_json:
        typer.echo("the topics are as the services need them")
