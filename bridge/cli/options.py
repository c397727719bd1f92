"""What commands share: options, and how settings and contracts are read."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.logs import set_up_logs
from bridge.kafka import check_config
from bridge.registry import load_services
from bridge.service import Service
from bridge.settings import Settings, load

Kafka = Annotated[
    str | None, typer.Option("--kafka", help="Bootstrap servers, host:port (BRIDGE_KAFKA).")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
Schemas = Annotated[
    str | None, typer.Option("--schemas", help="Folder of contracts (BRIDGE_SCHEMAS).")
]


def load_settings(*, is_quiet: bool = False, **flags: object) -> Settings:
    """Read the settings; a command that ends by itself is quiet: its one line says what is wrong."""
    settings = load(os.environ, lambda path: Path(path).read_text(encoding="utf-8"), flags)
    set_up_logs("critical" if is_quiet else settings.log_level)
    check_config(settings.client_config())
    return settings


def load_contracts(settings: Settings) -> dict[str, Service]:
    """Read the contracts of all services."""
    return load_services(Path(settings.schemas))


def load_contract(settings: Settings, name: str) -> Service:
    """Read the contract of one service.

    Raises:
        BadParameter: There is none of that name.
    """
    known = load_contracts(settings)
    if name not in known:
        raise typer.BadParameter(
            f"no service {name} in {settings.schemas}: there are {', '.join(known)}"
        )
    return known[name]
