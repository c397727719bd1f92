"""A JVM as a child process: started guarded, watched, stopped.

Polled, not awaited: that works with every event loop, needs no thread and no child watcher, and
the log, which says when Kafka is ready, has to be polled anyway.
"""

import asyncio
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge.embedded.guard import guarded
from bridge.errors import EmbeddedKafkaError

_POLL_S = 0.02
_STOP_S = 20.0  # 0.2 s where nothing is wrong
_SUCCESSOR_S = 1.0
_READY = "Kafka Server started"  # the last word of a start: ports open, broker unfenced
_DRAINED = "Transition from SHUTTING_DOWN to SHUTDOWN (BrokerServer)"  # all records safe and closed
_RECORD = re.compile(r"\d{4}-\d\d-\S+ [A-Z]+ ")  # as log4j2.properties writes it
_BAD = re.compile(r"^\S+ (?:ERROR|FATAL) ", re.MULTILINE)
_CAUSE = "Caused by: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Jvm:
    """A running JVM of ours.

    Attributes:
        process: The child; it leads a process group of its own, so a Ctrl-C is left to us.
        log: What the program says.
        output: What the JVM says, and the program before it has its log.
    """

    process: subprocess.Popen[bytes]
    log: Path
    output: Path

    @property
    def is_ended(self) -> bool:
        """Whether the process is gone."""
        return self.process.poll() is not None

    @property
    def is_ready(self) -> bool:
        """Whether Kafka has said that it serves."""
        return _READY in _text(self.log)

    @property
    def is_drained(self) -> bool:
        """Whether Kafka's broker has stopped cleanly; its controller may still be there."""
        return self.is_ended or _DRAINED in _text(self.log)

    def death(self) -> EmbeddedKafkaError:
        """Tell, of a JVM that has ended, why, and where to read more."""
        code = self.process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        complaint, file = _complaint(self.log, self.output)
        return EmbeddedKafkaError(f"Kafka's Java {how}: {complaint} (more in {file})")


def start(command: Sequence[str], *, log: Path, output: Path, keep: Sequence[int] = ()) -> Jvm:
    """Start a JVM; whoever does stops it.

    Args:
        command: Java and its arguments.
        log: Where the program writes its log; an older one is put aside, under `.old`.
        output: Where standard output and standard error go; emptied first.
        keep: File descriptors that stay open in the JVM.
    """
    if log.exists():
        log.replace(log.with_suffix(".old"))
    with output.open("wb") as sink:
        process = subprocess.Popen(  # noqa: S603 - Java, with arguments of our own
            guarded(command),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            pass_fds=keep,
            process_group=0,
        )
    return Jvm(process=process, log=log, output=output)


async def wait_until(jvms: Sequence[Jvm], is_reached: Callable[[Jvm], bool]) -> None:
    """Wait until something is true of every JVM.

    Raises:
        EmbeddedKafkaError: One ended before it was; the others go on.
    """
    for jvm in jvms:
        while not is_reached(jvm):
            for each in jvms:
                if each.is_ended and not is_reached(each):
                    raise each.death()
            await asyncio.sleep(_POLL_S)


async def stop(jvms: Sequence[Jvm]) -> None:
    """Stop JVMs: ask all at once, and kill what is still there after 20 s, or on cancellation.

    When every broker has stopped, all records are safe. The leader of three controllers would then
    wait 5 s (fixed in Kafka) for a successor that cannot come, so it is killed after one.
    """
    for jvm in jvms:
        jvm.process.terminate()
    try:
        async with asyncio.timeout(_STOP_S):
            await wait_until(jvms, lambda jvm: jvm.is_drained)
        async with asyncio.timeout(_SUCCESSOR_S):
            await wait_until(jvms, lambda jvm: jvm.is_ended)
    except TimeoutError:
        pass
    finally:
        for jvm in jvms:
            jvm.process.kill()
            jvm.process.wait()


def _complaint(log: Path, output: Path) -> tuple[str, Path]:
    """Find the words that say most about an end, and the file that has the rest.

    That is the exception of the last error with its innermost cause, or what Java says first.
    """
    text = _text(log)
    errors = list(_BAD.finditer(text))
    if errors:
        first, *trace = text[errors[-1].end() :].splitlines()
        named = [line for line in trace[:1] if not _RECORD.match(line)] or [first]
        causes = [line for line in trace if line.startswith(_CAUSE)][-1:]
        return "; ".join(named + causes), log
    lines = [line for line in _text(output).splitlines() if not line.startswith("WARNING")]
    return (lines[:1] or ["it said nothing"])[0], output


def _text(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""
