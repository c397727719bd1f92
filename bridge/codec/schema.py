"""A schema that reads and writes: JSON or Python to framed Avro, and back.

Compiled once when a contract is loaded, immutable, used from any thread. What `from_json` and
`from_native` accept, `decode` takes back: the same budgets hold on both sides.
"""

from collections.abc import Callable
from io import BytesIO
from typing import TypeAlias

import fastavro

from bridge.codec import canonical, openapi
from bridge.codec.contract import parse
from bridge.codec.document import parse_json, render_json
from bridge.codec.frame import HEAD_BYTES, open_frame, schema_id_of
from bridge.codec.leaf import default_leaf, json_leaf, json_types, native_leaf, native_types
from bridge.codec.node import MAX_BYTES, MAX_ELEMENTS, Contract, Field, Missing, Node, Record
from bridge.codec.reader import Default, Defaults, Form, Leaf, Read, Readers
from bridge.codec.refusal import refuse
from bridge.codec.walk import Walkers, walk_all
from bridge.errors import ContractError, InvalidPayloadError, MalformedBodyError, RecordError

LeafReader: TypeAlias = Callable[[Leaf], Read]
LeafTypes: TypeAlias = Callable[[Leaf], tuple[type, ...]]

_SCHEMA_JSON_DEPTH = 256  # a record within a record is three levels of JSON


class Schema:
    """One parsed Avro schema.

    Attributes:
        id: Its ID in the wire format: 31 bits of its canonical form's SHA-256.
        canonical: Parsing Canonical Form, with `logicalType`, `precision`, `scale` kept.
        source: The schema's JSON as it was given.
        contract: Its types.
    """

    def __init__(self, contract: Contract, source: object) -> None:
        self.contract = contract
        self.source = source
        self.canonical = canonical.render(contract.root)
        self.id = canonical.identify(self.canonical)
        self._head = open_frame(self.id)
        self._walk = Walkers(contract).root
        self._writer = _prepare(contract, contract.root, logical=False)
        self._reader = _prepare(contract, contract.root, logical=True)
        self.defaults = _read_defaults(contract)
        self._read_json = _compile(contract, json_leaf, json_types, self.defaults)
        self._read_native = _compile(contract, native_leaf, native_types, self.defaults)

    @classmethod
    def load(cls, source: str | dict[str, object] | list[object], *, where: str) -> "Schema":
        """Parse a schema.

        Args:
            source: Its text, or its JSON parsed.
            where: What to call it in messages: the file's name.

        Raises:
            ContractError: It is no schema that the bridge can serve; the message names `where` and
                the path of the field.
        """
        if isinstance(source, str):
            try:
                parsed = parse_json(source.encode(), max_depth=_SCHEMA_JSON_DEPTH)
            except (MalformedBodyError, UnicodeEncodeError) as error:
                raise ContractError(f"{where}: not JSON: {error}") from None
        else:
            parsed = source
        return cls(parse(parsed, where=where), parsed)

    @property
    def where(self) -> str:
        """The file it came from."""
        return self.contract.where

    def default_of(self, field: str) -> Default | None:
        """Find the default of a field of the outermost record; None: it has none."""
        root = self.contract.root
        return self.defaults.get((root.name, field)) if isinstance(root, Record) else None

    def from_json(self, value: object) -> bytes:
        """Turn parsed JSON into framed Avro.

        Raises:
            InvalidPayloadError: It does not fit; with every violation up to 20.
        """
        return self._write(self._read_json(value, 0, [MAX_ELEMENTS]))

    def from_native(self, value: object) -> bytes:
        """Turn a handler's value (datetime, Decimal, UUID, bytes …) into framed Avro.

        Raises:
            InvalidPayloadError: It does not fit; with every violation up to 20.
        """
        return self._write(self._read_native(value, 0, [MAX_ELEMENTS]))

    def from_binary(self, data: bytes, *, is_framed: bool) -> tuple[bytes, object]:
        """Turn Avro that somebody else has written into framed Avro as it is written here.

        One value can be written in several ways (blocks of arrays and maps, their order, long
        numbers). What comes out is the one that `from_json` makes of the same content, where maps
        have the same order.

        Args:
            data: One value in Avro binary.
            is_framed: Whether the five bytes of the Confluent wire format are in front.

        Returns:
            The framed value, and what it says as Python values.

        Raises:
            InvalidPayloadError: The bytes are not exactly one value of this very schema within the
                budgets.
        """
        try:
            value = self.decode(data if is_framed else self._head + data)
        except RecordError as unreadable:
            raise refuse(f"as Avro: {unreadable}") from None
        return self.from_native(value), value

    def decode(self, value: bytes | None) -> object:
        """Turn framed Avro into Python values, logical types as Python has them.

        Raises:
            RecordError: The bytes are not one value of this very schema within the budgets.
        """
        found = schema_id_of(value)
        if value is None or found != self.id:
            raise RecordError(f"schema ID {found}: want {self.id}, {self.where}")
        if len(value) > MAX_BYTES:
            raise RecordError(f"a value of {len(value)} bytes: want at most {MAX_BYTES}")
        walk_all(self._walk, value, HEAD_BYTES)
        return _unpack(self._reader, value, HEAD_BYTES)

    def json_schema(self, *, refs: str = "#/$defs/") -> dict[str, object]:
        """Describe the plain JSON form as JSON Schema 2020-12.

        Args:
            refs: What `$ref` puts before a type's name: for a document that moves the schema's
                `$defs` elsewhere, such as OpenAPI's `#/components/schemas/`.
        """
        return openapi.render(self.contract, self.defaults, refs)

    def _write(self, raw: object) -> bytes:
        out = BytesIO()
        out.write(self._head)
        fastavro.schemaless_writer(out, self._writer, raw)
        framed = out.getvalue()
        if len(framed) > MAX_BYTES:
            raise refuse(f"{len(framed)} bytes as Avro: want at most {MAX_BYTES}")
        return framed


def _prepare(contract: Contract, node: Node, *, logical: bool) -> canonical.AvroJson:
    form = canonical.to_fastavro(contract, node, logical=logical)
    return fastavro.parse_schema({"type": form} if isinstance(form, str) else form)


def _compile(contract: Contract, leaf: LeafReader, types: LeafTypes, defaults: Defaults) -> Read:
    return Readers(contract, Form(leaf=leaf, types=types, defaults=defaults)).root


def _unpack(reader: canonical.AvroJson, data: bytes, start: int) -> object:
    """Let fastavro read bytes that the walk has passed; what it still refuses is text."""
    source = BytesIO(data)
    source.seek(start)
    try:
        return fastavro.schemaless_reader(source, reader)
    except (ValueError, ArithmeticError, EOFError) as error:
        raise RecordError(f"unreadable: {error}") from None


def _read_defaults(contract: Contract) -> Defaults:
    """Read every default of a contract once, and show that it can be written and read back."""
    readers = Readers(contract, Form(leaf=default_leaf, types=json_types, defaults=None))
    walkers = Walkers(contract)
    defaults: dict[tuple[str, str], Default] = {}
    for record in contract.names.values():
        for field in record.fields if isinstance(record, Record) else ():
            if isinstance(field.default, Missing):
                continue
            try:
                default = _read_default(contract, readers, walkers, field)
            except (InvalidPayloadError, RecordError) as error:
                raise ContractError(
                    f'{contract.where}: field "{field.name}" of {record.name}: its default does '
                    f"not fit: {error}"
                ) from None
            defaults[record.name, field.name] = default
    return defaults


def _read_default(contract: Contract, readers: Readers, walkers: Walkers, field: Field) -> Default:
    left = [MAX_ELEMENTS]
    raw = readers.compile(field.type)(field.default, 0, left)
    out = BytesIO()
    fastavro.schemaless_writer(out, _prepare(contract, field.type, logical=False), raw)
    data = out.getvalue()
    walk_all(walkers.compile(field.type), data, 0)
    native = _unpack(_prepare(contract, field.type, logical=True), data, 0)
    plain = parse_json(render_json(native))
    return Default(raw, plain, _depth(raw), MAX_ELEMENTS - left[0])


def _depth(raw: object) -> int:
    match raw:
        case dict():
            return 1 + max(map(_depth, raw.values()), default=0)
        case list():
            return 1 + max(map(_depth, raw), default=0)
        case (_, inner):
            return _depth(inner)
        case _:
            return 0
