"""Which handler a worker runs: a function here, in threads or in processes, an application, or a program."""

import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bridge.service import Service
from bridge.worker import Handler, load_handler, open_http, open_isolated, open_once, open_program


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What the command line says about the handler.

    Attributes:
        where: `module:function`; None: `consumers.<service>:handle`.
        http: URL of an application that is the handler; None: none is.
        command: A program that is the handler; None: none is.
        processes: Copies of that program.
        is_once: Whether it is run anew for each request.
    """

    where: str | None = None
    http: str | None = None
    command: str | None = None
    processes: int = 1
    is_once: bool = False


@asynccontextmanager
async def open_handler(
    service: Service, chosen: Chosen, *, threads: Executor, own_ms: Callable[[], int]
) -> AsyncIterator[Handler]:
    """Open the handler of a service for as long as the block.

    Args:
        service: Whose.
        chosen: What the command line says.
        threads: Runs functions that are to run in threads.
        own_ms: Own clock, Unix milliseconds.

    Raises:
        SettingsError: It is not there, or does not fit the service.
    """
    where = chosen.where or f"consumers.{service.name}:handle"
    if chosen.http is not None:
        opened = open_http(chosen.http, service)
    elif chosen.command is not None and chosen.is_once:
        opened = open_once(chosen.command, service, environ=os.environ, own_ms=own_ms)
    elif chosen.command is not None:
        opened = open_program(
            chosen.command,
            service,
            processes=chosen.processes,
            environ=os.environ,
            own_ms=own_ms,
        )
    elif service.worker.isolation == "process":
        opened = open_isolated(where, service)
    else:
        yield load_handler(where, service, threads)
        return
    async with opened as handler:
        yield handler
