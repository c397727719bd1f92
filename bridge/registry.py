"""Schemas from folders: what `schemas/<service>/` holds, as services.

Thin: reads files and hands their text to `service.load`. Schema IDs follow from the text alone,
so every process with the same files knows the same IDs and nothing is coordinated.
"""

from collections.abc import Mapping
from pathlib import Path

from bridge import service
from bridge.codec import Schema
from bridge.errors import ContractError, SettingsError
from bridge.service import Service

_REQUEST, _REPLY, _SETTINGS = "request.avsc", "reply.avsc", "service.toml"


def load_services(folder: Path) -> dict[str, Service]:
    """Load every service of a folder, sorted by name.

    Each subfolder with a request.avsc is one.

    Raises:
        SettingsError: The folder is missing, unreadable, or holds no service.
        ContractError: A service's files are not usable; the message names the file.
    """
    try:
        found = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    except OSError as error:
        raise SettingsError(
            f"schemas folder {folder}: {error.strerror}: set BRIDGE_SCHEMAS to the folder that "
            "holds <service>/request.avsc"
        ) from None
    services = {entry.name: _load(entry) for entry in found if _is_service(entry)}
    if not services:
        raise SettingsError(
            f"schemas folder {folder} holds no service: write <service>/{_REQUEST} in it, or set "
            "BRIDGE_SCHEMAS to another folder"
        )
    _check_names(services)
    schemas_by_id(services)
    return services


def schemas_by_id(services: Mapping[str, Service]) -> dict[int, Schema]:
    """Find every schema that travels, by its ID; the bridge's own included.

    Raises:
        ContractError: Two different schemas have the same ID.
    """
    own = [service.FAILURE, service.PROGRESS]
    requests = [one.request for one in services.values()]
    replies = [one.reply for one in services.values() if one.reply is not None]
    return service.index_schemas([*own, *requests, *replies])


def _is_service(folder: Path) -> bool:
    if (folder / _REQUEST).exists():
        return True
    for name in (_REPLY, _SETTINGS):
        if (folder / name).exists():
            raise ContractError(f"{folder.name}/{name} has no {_REQUEST} beside it: write one")
    return False


def _load(folder: Path) -> Service:
    return service.load(
        folder.name,
        request=_read(folder / _REQUEST) or "",
        reply=_read(folder / _REPLY),
        settings=_read(folder / _SETTINGS) or "",
    )


def _read(file: Path) -> str | None:
    name = f"{file.parent.name}/{file.name}"
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ContractError(f"{name}: byte {error.start} is not UTF-8: save it as UTF-8") from None
    except OSError as error:
        raise ContractError(f"{name}: {error.strerror}: make it a readable file") from None


def _check_names(services: Mapping[str, Service]) -> None:
    """Kafka names metrics after topics with `_` for `.`, so it refuses a.b beside a_b."""
    seen: dict[str, str] = {}
    for name in services:
        other = seen.setdefault(name.replace(".", "_"), name)
        if other != name:
            raise ContractError(
                f"services {other} and {name}: Kafka takes . and _ in topic names for the same: "
                "rename one"
            )
