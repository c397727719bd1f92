"""Do the tests notice? Faults are put into a copy of the tree, one by one; each must turn a test red.

    make mutations

Each fault replaces one snippet of the product by another. The test files named beside it run on the
copy, and the first test that fails is printed. A fault that no test notices is a promise that
nobody watches: exit 1. First of all those tests run on the tree as it is, and must be green.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bridge.embedded import guarded

ROOT = Path(__file__).parents[1]
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.log")
_GREEN, _RED = 0, 1
_PATIENCE_S = 540

KILL = "tests/broker/test_kill.py"
RETRIES = "tests/broker/test_retries.py"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that could be wrong.

    Attributes:
        name: What it is.
        file: Where, below `bridge/`.
        was: What is there, just once.
        becomes: What is put in its place.
        tests: What should notice: arguments of pytest.
    """

    name: str
    file: str
    was: str
    becomes: str
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        "committed before it is handled",
        "worker/run.py",
        "        key: _Key = (record.topic, record.key)",
        "        partition.ledger.finish(record.offset)\n"
        "        self._finished.set()\n"
        "        key: _Key = (record.topic, record.key)",
        (KILL, "-k", "is_killed_is_answered_by_another"),
    ),
    Fault(
        "answered before the handler has run",
        "worker/attempt.py",
        "        names = self._service.forward\n",
        "        await self._write(send, request, Event.COMPLETED)\n"
        "        names = self._service.forward\n",
        ("tests/broker/test_crashes.py",),
    ),
    Fault(
        "what is answered is not looked for",
        "worker/work.py",
        'return "skipped" if request.identity in self._answered else None',
        "return None",
        (KILL, "-k", "not_committed_is_not_handled_again"),
    ),
    Fault(
        "what an earlier owner answered is forgotten",
        "worker/partition.py",
        "        return min(self.floor_ms, own_ms)",
        "        return own_ms",
        ("tests/core/test_partition.py",),
    ),
    Fault(
        "a dead letter is swallowed",
        "worker/ending.py",
        "            where = await self._bury(partition, record, verdict, request.request_id)",
        '            where: str | None = "nowhere/0/0"',
        ("tests/broker/test_poison_mix.py",),
    ),
    Fault(
        "a record that cannot be read is passed over",
        "worker/ending.py",
        "        where = await self._bury(partition, record, verdict)\n",
        '        where: str | None = "nowhere/0/0"\n',
        ("tests/broker/test_poison.py", "-k", "every_way"),
    ),
    Fault(
        "the client library commits by itself",
        "kafka/client.py",
        '    "enable.auto.commit": False,\n    "enable.auto.offset.store": False,\n',
        '    "enable.auto.commit": True,\n    "enable.auto.offset.store": True,\n',
        ("tests/broker/test_long_handlers.py",),
    ),
    Fault(
        "tried again past the deadline",
        "retry.py",
        "    if deadline_ms is not None and at_ms >= deadline_ms:",
        "    if deadline_ms is None and at_ms < 0:",
        (RETRIES, "-k", "past_the_deadline"),
    ),
    Fault(
        "tried again without end",
        "retry.py",
        "    if attempt >= policy.attempts:",
        "    if attempt >= 1000 * policy.attempts:",
        ("tests/core/test_retry.py",),
    ),
    Fault(
        "starts are not counted",
        "worker/partition.py",
        "        self.starts = self.starts + 1 if offset == self.starts_at else 1",
        "        self.starts = 1",
        ("tests/core/test_partition.py",),
    ),
    Fault(
        "nobody goes carefully after a death",
        "worker/partition.py",
        "            self.careful_until = min(self.inherited_until, self.starts_at + REACH)",
        "            self.careful_until = 0",
        (RETRIES, "-k", "kills_every_worker"),
    ),
    Fault(
        "a partition is served to its end before the next one",
        "worker/slots.py",
        "                self._waiting.move_to_end(place)",
        "                self._waiting.move_to_end(place, last=False)",
        ("tests/core/test_slots.py",),
    ),
    Fault(
        "records of one key side by side",
        "worker/run.py",
        "        if record.key is None:  # no key",
        "        if record.partition is not None:  # no key",
        ("tests/broker/test_order.py",),
    ),
    Fault(
        "a group begins at the end",
        "kafka/group.py",
        '"auto.offset.reset": "earliest"',
        '"auto.offset.reset": "latest"',
        ("tests/broker/test_long_handlers.py",),
    ),
    Fault(
        "who has lost a partition answers for it",
        "worker/work.py",
        "            if partition.is_lost:\n                return",
        "            if partition.is_lost and record.offset < 0:\n                return",
        ("tests/broker/test_zombie.py",),
    ),
    Fault(
        "who gives a partition up does not wait for what runs",
        "worker/run.py",
        "                    await partition.idle.wait()",
        "                    await asyncio.sleep(0)",
        (KILL, "-k", "finishes_what_it_has_in_hand"),
    ),
    Fault(
        "done though its deadline is over",
        "worker/attempt.py",
        "        if request.deadline_ms is not None and self._clock.now_ms() >= request.deadline_ms:",
        "        if request.deadline_ms is not None and self._clock.now_ms() < 0:",
        ("tests/broker/test_deadlines.py",),
    ),
    Fault(
        "a full worker fetches on",
        "worker/run.py",
        "            self.group.pause(list(wanted))",
        "            list(wanted)",
        ("tests/broker/test_worker.py", "-k", "enough_in_hand"),
    ),
)


@contextmanager
def copy_of_tree(fault: Fault | None) -> Iterator[Path]:
    """Copy what tests need, with a fault or without, for as long as the block."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        copy = Path(name) / "tree"
        shutil.copytree(ROOT, copy, ignore=_LEFT_OUT)
        if fault is not None:
            file = copy / "bridge" / fault.file
            text = file.read_text(encoding="utf-8")
            found = text.count(fault.was)
            if found != 1:
                sys.exit(f"{fault.name}: {file.name} has its snippet {found} times: want it once")
            file.write_text(text.replace(fault.was, fault.becomes), encoding="utf-8")
        yield copy


def run_tests(copy: Path, tests: tuple[str, ...], environ: Mapping[str, str]) -> tuple[int, str]:
    """Run tests on a copy until one fails; returns pytest's code and what it printed."""
    environ = {**os.environ, **environ, "PYTHONPATH": str(copy)}
    asked = "import bridge, bridge.cli; print(bridge.__file__)"
    found = subprocess.run(  # noqa: S603 - this very interpreter
        [sys.executable, "-c", asked],
        cwd=copy / "tests",
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if not found.startswith(str(copy)):
        sys.exit(f"{found.strip()} would be tested: want {copy}")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(  # noqa: S603 - this very interpreter
        command,
        cwd=copy,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE_S,
    )
    return done.returncode, done.stdout


def judge(fault: Fault, environ: Mapping[str, str]) -> str | None:
    """Put a fault in; returns the test that noticed, None when none did."""
    with copy_of_tree(fault) as copy:
        code, said = run_tests(copy, fault.tests, environ)
    if code == _GREEN:
        return None
    noticed = re.search(r"^(?:FAILED|ERROR) tests/(\S+?)(?:\[.*)?(?: - .*)?$", said, re.MULTILINE)
    if code != _RED or noticed is None:
        sys.exit(f"{fault.name}: the tests did not run:\n{said}")
    return noticed[1]


def check_green(faults: list[Fault], environ: Mapping[str, str]) -> None:
    """See that all of those tests pass on the tree as it is: red must be the fault's."""
    with copy_of_tree(None) as copy:
        for tests in dict.fromkeys(fault.tests for fault in faults):
            code, said = run_tests(copy, tests, environ)
            if code != _GREEN:
                sys.exit(f"without any fault, {' '.join(tests)} fails:\n{said}")


@contextmanager
def kafka(folder: str) -> Iterator[str]:
    """Run one Kafka for all of it."""
    command = [sys.executable, "-m", "bridge.embedded", "--port", "0", "--data", folder]
    with subprocess.Popen(  # noqa: S603 - this project's own
        guarded(command, on_parent_death=signal.SIGTERM),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as child:
        try:
            line = child.stdout.readline().split() if child.stdout else []
            if line[:1] != ["ready"]:
                sys.exit("the embedded Kafka did not start")
            yield line[1]
        finally:
            child.terminate()


def main(wanted: list[str]) -> int:
    """Try every fault, or those whose names have one of the wanted words; returns how many survive."""
    faults = [f for f in FAULTS if not wanted or any(word in f.name for word in wanted)]
    survived = 0
    with tempfile.TemporaryDirectory(prefix="mutations-kafka-") as folder, kafka(folder) as address:
        environ = {"BRIDGE_TEST_KAFKA": address}
        check_green(faults, environ)
        print(f"{'fault':54} | test that noticed", flush=True)
        for fault in faults:
            noticed = judge(fault, environ)
            survived += noticed is None
            print(f"{fault.name:54} | {noticed or 'NONE: it survives'}", flush=True)
    print(f"{len(faults)} faults, {survived} survived")
    return survived


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
