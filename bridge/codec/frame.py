"""The Confluent wire format: a zero byte, four bytes of schema ID, then Avro."""

from bridge.errors import RecordError

HEAD_BYTES = 5


def open_frame(schema_id: int) -> bytes:
    """Write what stands in front of the Avro bytes."""
    return b"\0" + schema_id.to_bytes(4, "big")


def schema_id_of(value: bytes | None) -> int:
    """Read the schema ID of a framed value.

    Raises:
        RecordError: There is no value, or no frame.
    """
    if value is None:
        raise RecordError("the record has no value: want Avro in the Confluent wire format")
    if len(value) < HEAD_BYTES or value[0] != 0:
        raise RecordError(
            f"the value starts with {value[:HEAD_BYTES].hex() or 'nothing'}: want 00 and a schema "
            "ID of 4 bytes, the Confluent wire format"
        )
    return int.from_bytes(value[1:HEAD_BYTES], "big")
