"""Avro on one side, JSON and Python on the other; strict, bounded, exact.

    parse_json ─► Schema.from_json ─► framed bytes ─► Schema.decode ─► natives ─► render_json
                  Schema.from_native ─┘

`contract` reads and checks a schema, `node` is what it becomes; `reader` and `leaf` turn values
into what fastavro writes, `walk` bounds bytes before fastavro reads them, `logical` knows dates
and decimals, `union` which branch a value means, `canonical` the schema's ID, `document` JSON.
"""

from bridge.codec.document import parse_json, render_json
from bridge.codec.frame import HEAD_BYTES, schema_id_of
from bridge.codec.key import read_key
from bridge.codec.schema import Schema

__all__ = ["HEAD_BYTES", "Schema", "parse_json", "read_key", "render_json", "schema_id_of"]
