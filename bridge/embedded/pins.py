"""How `jars.txt` is made, for a new version of Kafka or log4j; no other module needs this one.

    python -m bridge.embedded.pins > pins && mv pins bridge/embedded/jars.txt

Only Kafka may choose versions. Resolved as its equal, log4j's wish for an older kafka-clients
would win: so it is `raw`, in jgo's word.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

from bridge.embedded.jars import load_maven

_WANTED = (
    "org.apache.kafka:kafka_2.13:4.3.1",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.2",  # the one for slf4j 1.7, which Kafka uses
)
_HEAD = """\
# Apache Kafka, what it needs to run, and log4j for its log: each jar with its SHA-256.
# Made by `python -m bridge.embedded.pins`; never by hand.
"""


def _main() -> int:
    sys.stdout.write(_HEAD)
    with tempfile.TemporaryDirectory() as scratch:
        maven = load_maven(Path(scratch), None)
        wanted = [maven.create_dependency(coordinate) for coordinate in _WANTED]
        for dependency in wanted:
            dependency.scope, dependency.raw = "compile", True
        direct, further = maven.resolver.resolve(wanted)
        for found in [*direct, *(each for each in further if each.scope in {"compile", "runtime"})]:
            digest = hashlib.sha256(found.artifact.resolve().read_bytes()).hexdigest()
            sys.stdout.write(f"{found.groupId}:{found.artifactId}:{found.version} {digest}\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
