"""The composition root: reads environment and clock, draws chance, opens blocks, runs one command.

Every command: errors are one line on stderr; exit 0 done, 1 failed, 2 wrong use.
"""

import sys
from typing import NoReturn

import typer

from bridge.cli.app import app
from bridge.errors import BridgeError

_DONE, _FAILED, _MISUSED = 0, 1, 2
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer exports its subclasses only


def main() -> None:
    """Run `kbridge` with the arguments of this process."""
    try:
        sys.exit(_run())
    except* BridgeError as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        _fail(str(first), _FAILED)


def _run() -> int:
    try:
        return int(app(prog_name="kbridge", standalone_mode=False) or _DONE)
    except _UsageError as wrong:
        message = str(wrong.format_message())  # type: ignore[attr-defined]  # a UsageError has it
        if message.startswith("Usage:"):  # nothing was asked for: this is the help
            print(message, file=sys.stderr)  # noqa: T201 - help for people
            sys.exit(_MISUSED)
        _fail(f"{message.rstrip('.')}: see `{_command(wrong)} --help`", _MISUSED)
    except typer.Abort:
        _fail("stopped", _FAILED)


def _command(wrong: BaseException) -> str:
    context = getattr(wrong, "ctx", None)
    return "kbridge" if context is None else str(context.command_path)


def _fail(line: str, code: int) -> NoReturn:
    print(f"kbridge: {line}", file=sys.stderr)  # noqa: T201 - the one line for people
    sys.exit(code)
