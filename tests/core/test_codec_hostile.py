"""Bytes made to kill whoever reads them, read in a process of their own.

A crash of the C stack takes the test run with it, so each table is read by a fresh Python, which
then says that it is still there, how much memory it took, and how long each reading was.
"""

import json
import subprocess
import sys
from typing import Any

import pytest

from bridge.codec import Schema
from bridge.errors import RecordError

CHILD = """
import json, resource, sys, time
from bridge.codec import Schema
from bridge.errors import RecordError

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

schemas = {name: Schema.load(source, where=name) for name, source in json.loads(sys.argv[1]).items()}
before, slowest, kept = peak_mib(), 0.0, []
for name, data in json.load(sys.stdin):
    schema = schemas[name]
    framed = b"\\0" + schema.id.to_bytes(4, "big") + bytes.fromhex(data)
    start = time.process_time()
    try:
        schema.decode(framed)
        kept.append([name, data[:40]])
    except RecordError:
        pass
    slowest = max(slowest, time.process_time() - start)
print(json.dumps({"kept": kept, "grown_mib": peak_mib() - before, "slowest_s": slowest}))
"""

SCHEMAS: dict[str, Any] = {
    "node": {
        "type": "record",
        "name": "Node",
        "fields": [{"name": "next", "type": ["null", "Node"]}],
    },
    "tree": {
        "type": "record",
        "name": "Tree",
        "fields": [{"name": "kids", "type": {"type": "array", "items": "Tree"}}],
    },
    "forest": {
        "type": "array",
        "items": {
            "type": "record",
            "name": "Tree",
            "fields": [{"name": "kids", "type": {"type": "array", "items": "Tree"}}],
        },
    },
    "maps": {
        "type": "record",
        "name": "Maps",
        "fields": [{"name": "kids", "type": {"type": "map", "values": "Maps"}}],
    },
    "nulls": {"type": "array", "items": "null"},
    "empties": {"type": "array", "items": {"type": "record", "name": "E", "fields": []}},
    "fixeds": {"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}},
    "null map": {"type": "map", "values": "null"},
    "ints": {"type": "array", "items": "int"},
    "bytes": {"type": "bytes"},
    "string": {"type": "string"},
    "long": {"type": "long"},
    "int": {"type": "int"},
    "boolean": {"type": "boolean"},
    "double": {"type": "double"},
    "union": ["null", "string"],
    "enum": {"type": "enum", "name": "S", "symbols": ["A", "B"]},
    "fixed": {"type": "fixed", "name": "F", "size": 4},
    "decimal": {"type": "bytes", "logicalType": "decimal", "precision": 5},
    "timestamp": {"type": "long", "logicalType": "timestamp-millis"},
    "clock": {"type": "int", "logicalType": "time-millis"},
    "day": {"type": "int", "logicalType": "date"},
    "uuid": {"type": "string", "logicalType": "uuid"},
}


def long(number: int) -> bytes:
    """A number as Avro writes it, of any size."""
    number = number * 2 if number >= 0 else -number * 2 - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


ENDLESS = b"\x80" * 20
LEVELS = 50_000

BYTES: list[tuple[str, bytes]] = [
    ("node", b"\x02" * LEVELS + b"\0"),
    ("node", b"\x02" * LEVELS),
    ("tree", b"\x02" * LEVELS + b"\0" * LEVELS),
    ("forest", b"\x02" * LEVELS + b"\0" * LEVELS),
    ("maps", b"\x02\0" * LEVELS + b"\0" * LEVELS),
    ("nulls", long(1 << 30) + b"\0"),
    ("nulls", long(1 << 62) + b"\0"),
    ("nulls", long(-(1 << 30)) + b"\0\0"),
    ("nulls", long(-(1 << 63)) + b"\0\0"),
    ("nulls", (long(50_000)) * 3 + b"\0"),
    ("empties", long(1 << 30) + b"\0"),
    ("fixeds", long(1 << 30) + b"\0"),
    ("null map", long(1 << 30) + b"\0"),
    ("null map", long(2) + long(1) + b"a" + long(-1) + b"\0"),
    ("ints", long(-2) + long(100) + b"\2\4\0"),
    ("ints", long(-2) + long(-1) + b"\2\4\0"),
    ("ints", long(1) + b"\2"),
    ("ints", long(1) + b"\2\0\0"),
    ("ints", b""),
    ("bytes", long(1 << 62)),
    ("bytes", long(-1)),
    ("bytes", long(-(1 << 62)) + b"x"),
    ("bytes", long(3) + b"ab"),
    ("bytes", long(1) + b"ab"),
    ("string", long(1 << 62)),
    ("string", long(1) + b"\xff"),
    ("string", long(3) + b"\xed\xa0\x80"),
    ("long", ENDLESS),
    ("long", ENDLESS + b"\1"),
    ("long", b"\xff" * 9 + b"\x02"),
    ("long", b"\x80" * 10 + b"\0"),
    ("long", b"\x80"),
    ("int", long(1 << 31)),
    ("int", long(-(1 << 31) - 1)),
    ("int", ENDLESS),
    ("boolean", b"\2"),
    ("boolean", b"\xff"),
    ("boolean", b""),
    ("double", b"\0" * 7),
    ("double", b"\0" * 9),
    ("union", long(2)),
    ("union", long(-1)),
    ("union", long(1 << 40)),
    ("union", ENDLESS),
    ("enum", long(2)),
    ("enum", long(-1)),
    ("fixed", b"abc"),
    ("fixed", b"abcde"),
    ("decimal", long(3) + b"\x01\x86\xa0"),
    ("decimal", long(1 << 20) + b"\x7f" * (1 << 20)),
    ("timestamp", long(1 << 62)),
    ("timestamp", long(-(1 << 62))),
    ("clock", long(-1)),
    ("clock", long(86_400_000)),
    ("day", long(1 << 30)),
    ("uuid", long(4) + b"none"),
    ("uuid", long(0)),
]


def read_in_child(rows: list[tuple[str, bytes]]) -> dict[str, Any]:
    done = subprocess.run(  # noqa: S603 - our own interpreter, our own text
        [sys.executable, "-c", CHILD, json.dumps(SCHEMAS)],
        input=json.dumps([(name, data.hex()) for name, data in rows]),
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
    )
    assert done.returncode == 0, done.stderr[-500:]  # -11 is a crash of the C stack
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.slow
def test_hostile_avro_is_refused_and_the_process_lives() -> None:
    told = read_in_child(BYTES)

    assert told["kept"] == []
    assert told["grown_mib"] < 50
    assert told["slowest_s"] < 0.1  # RELIABILITY 5, scenario 41


def test_each_of_them_is_a_record_error() -> None:
    schemas = {name: Schema.load(source, where=name) for name, source in SCHEMAS.items()}

    for name, data in BYTES:
        head = b"\0" + schemas[name].id.to_bytes(4, "big")
        with pytest.raises(RecordError):
            schemas[name].decode(head + data)


@pytest.mark.slow
def test_the_same_bytes_within_the_budgets_are_read() -> None:
    rows = [
        ("node", b"\x02" * 63 + b"\0"),
        ("tree", b"\x02" * 31 + b"\0" * 32),
        ("nulls", long(100_000) + b"\0"),
        ("ints", long(-2) + long(2) + b"\2\4\0"),
        ("long", b"\xff" * 9 + b"\x01"),
    ]

    assert [name for name, _ in read_in_child(rows)["kept"]] == [name for name, _ in rows]
