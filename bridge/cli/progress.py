"""A progress bar on a terminal, for whatever takes longer than two seconds; elsewhere, silence."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_PATIENCE_S = 2.0


@contextmanager
def progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Show a bar on standard error while the block runs, from two seconds on; then it is wiped.

    Yields:
        Told what is being done, how many are done, and of how many; None: not known yet. It may be
        called on any thread.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("asking Kafka", total=None)

    def tell(what: str, done: int, total: int | None) -> None:
        bar.update(task, description=what, completed=done, total=total)

    timer = Timer(_PATIENCE_S, bar.start)
    if sys.stderr.isatty():
        timer.start()
    try:
        yield tell
    finally:
        timer.cancel()
        if timer.ident is not None:
            timer.join()
        if bar.live.is_started:  # one that was never shown would leave an empty line
            bar.stop()
