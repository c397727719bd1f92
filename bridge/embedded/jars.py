"""Kafka's jars: fetched once with jgo, kept in the user's cache, checked at every start.

`jars.txt` pins every jar and its SHA-256 (`pins` makes it), so nothing is resolved at run time: jgo
only downloads, and its environment builder, which fetches a whole JDK to look at the jars, is not
used. A jar reaches its place in the
cache only whole and checked, by a rename: a download that was cut off, or two at once, do no harm.
"""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.errors import EmbeddedKafkaError

if TYPE_CHECKING:
    from jgo.maven import MavenContext

INSTALL = "pip install 'kafka-bridge[embedded]'"

_PINS = Path(__file__).with_name("jars.txt")
_ENDPOINT = (
    "org.apache.kafka:kafka_2.13:4.3.1",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.2",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Jars:
    """Where Kafka's jars are kept, and where they come from.

    Attributes:
        cache: Folder for what is worth keeping between projects, 50 MB; made when missing.
        repository: Base URL of the Maven repository; None: jgo's default.
    """

    cache: Path = Path("~/.cache/kafka-bridge")
    repository: str | None = None


@dataclass(frozen=True, slots=True)
class _Pin:
    coordinate: str
    sha256: str

    @property
    def file(self) -> str:
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


async def load_class_path(jars: Jars, say: Callable[[str], None]) -> str:
    """Find Kafka's jars in the cache, and fetch those that are not there.

    Args:
        jars: The cache and the repository.
        say: Told in one line when something has to be fetched.

    Returns:
        The class path, in Java's form.

    Raises:
        EmbeddedKafkaError: A jar could not be fetched or is not the pinned one; what was fetched
            before it stays in the cache.
    """
    folder = _load_folder(jars.cache)
    pins = [_Pin(*line.split()) for line in _PINS.read_text().splitlines() if line[:1] != "#"]
    missing = [pin for pin in pins if not _is_whole(folder / pin.file, pin.sha256)]
    if missing:
        say(f"fetching {len(missing)} of {len(pins)} jars of Kafka, once, to {folder}")
        await _fetch_all(missing, folder, jars.repository)
    return os.pathsep.join(str(folder / pin.file) for pin in pins)


def _load_folder(cache: Path) -> Path:
    folder = cache.expanduser() / "jars"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedKafkaError(
            f"{folder} cannot keep Kafka's jars ({error.strerror}): choose another cache folder"
        ) from None
    return folder


def _is_whole(file: Path, sha256: str) -> bool:
    """Compare a file with its pin; 50 MB in all take 0.05 s."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False


async def _fetch_all(pins: Sequence[_Pin], folder: Path, repository: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        maven = load_maven(Path(scratch), repository)
        await asyncio.to_thread(
            _fetch, maven, pins[0], folder
        )  # alone: offline, one time-out is enough
        try:
            async with asyncio.TaskGroup() as tasks:
                for pin in pins[1:]:
                    tasks.create_task(asyncio.to_thread(_fetch, maven, pin, folder))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # one jar that is missing says it all


def load_maven(scratch: Path, repository: str | None) -> "MavenContext":
    """Make jgo's view of a Maven repository, which downloads to `scratch`.

    Raises:
        EmbeddedKafkaError: jgo is not installed; nothing was changed.
    """
    try:
        from jgo.maven import MavenContext  # noqa: PLC0415 - an extra, and 0.3 s that few starts need
    except ModuleNotFoundError as error:
        raise EmbeddedKafkaError(
            f"the embedded Kafka needs the package {error.name}: {INSTALL}"
        ) from None
    remote = None if repository is None else {"repository": repository}
    return MavenContext(repo_cache=scratch, remote_repos=remote)


def _fetch(maven: "MavenContext", pin: _Pin, folder: Path) -> None:
    source = ", ".join(maven.remote_repos.values())
    group, artifact, version = pin.coordinate.split(":")
    try:
        file = maven.project(group, artifact).at_version(version).artifact().resolve()
    except (OSError, RuntimeError) as error:  # jgo's and requests' ways to say no
        reason = str(error).partition("\n")[0]
        raise EmbeddedKafkaError(
            f"cannot fetch {pin.coordinate} from {source} ({reason}): "
            f"start once with that repository in reach, or bring the folder {folder} from a "
            "machine where that was done; afterwards no network is needed"
        ) from None
    if not _is_whole(file, pin.sha256):
        raise EmbeddedKafkaError(
            f"{pin.coordinate} from {source} is not the file that was pinned "
            f"(want SHA-256 {pin.sha256}): start again, or use a repository that does not alter files"
        )
    file.replace(folder / pin.file)
