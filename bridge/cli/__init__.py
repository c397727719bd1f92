"""The composition root: reads environment and clock, draws chance, opens blocks, runs one command.

Every command: errors are one line on stderr; exit 0 done, 1 failed, 2 wrong use.
"""

import sys

from bridge.cli.app import app
from bridge.errors import BridgeError

_DONE, _FAILED = 0, 1


def main() -> None:
    """Run `kbridge` with the arguments of this process."""
    try:
        app()
    except* BridgeError as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        print(f"kbridge: {first}", file=sys.stderr)  # noqa: T201 - the one line for people
        sys.exit(_FAILED)
