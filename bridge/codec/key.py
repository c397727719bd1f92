"""A request's key: the field that says which requests keep their order among themselves."""

from collections.abc import Callable

from bridge.codec.node import MISSING, Enum, Record, Scalar
from bridge.codec.refusal import describe, pointer_step
from bridge.codec.schema import Schema
from bridge.codec.text import check_text
from bridge.errors import ContractError, InvalidPayloadError, Violation


def read_key(schema: Schema, field: str) -> Callable[[object], bytes]:
    """Make the reader of a key, from parsed JSON to the bytes of a record's key.

    A key is text, a symbol, a UUID (in small letters) or a whole number (decimal), so that a
    producer in any language makes the same bytes of it.

    Raises:
        ContractError: There is no such field, or its type is none of these.
    """
    root = schema.contract.root
    known = {member.name: member for member in root.fields} if isinstance(root, Record) else {}
    if field not in known:
        names = ", ".join(known) or "none, since the request is no record"
        raise ContractError(f'{schema.where}: key = "{field}": no such field; there are: {names}')
    kind = schema.contract.resolve(known[field].type)
    if not isinstance(kind, Enum) and not _is_key(kind):
        raise ContractError(
            f'{schema.where}: key = "{field}": want a field of type string, uuid, enum, int or long'
        )
    default = schema.default_of(field)
    missing = MISSING if default is None else default.plain
    is_uuid = isinstance(kind, Scalar) and kind.logical == "uuid"

    def read(value: object) -> bytes:
        item = value.get(field, missing) if isinstance(value, dict) else missing
        if isinstance(item, int) and not isinstance(item, bool):
            return b"%d" % item
        if not isinstance(item, str):
            reason = f"found {describe(item)}: want the key, text or a whole number"
            raise InvalidPayloadError((Violation(pointer_step(field), reason),))
        text = check_text(item)
        return text.lower().encode() if is_uuid else text.encode()

    return read


def _is_key(kind: object) -> bool:
    if not isinstance(kind, Scalar):
        return False
    plain = kind.logical is None and kind.type in {"string", "int", "long"}
    return plain or kind.logical == "uuid"
