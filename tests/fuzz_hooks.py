"""What schemathesis must be told of: how bodies are written that are not JSON."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def write_lines(_: object, value: object) -> bytes:
    """Write one line, or several for an array."""
    lines = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@schemathesis.deserializer("application/x-ndjson")
def read_lines(_: object, response: schemathesis.Response) -> object:
    """Read each line; what is not JSON fails here."""
    return [json.loads(line) for line in response.content.splitlines()]


@schemathesis.serializer("avro/binary")
def write_anything(_: object, value: object) -> bytes:
    """Write bytes that are hardly ever Avro."""
    return json.dumps(value).encode()
