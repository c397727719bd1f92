"""What a contract is made of: one small value per Avro type.

`contract` builds these from a schema's JSON and has checked everything by then; the compilers
(`reader`, `walk`, `canonical`, `openapi`) only read them. A type is defined where it first
appears and named by `Reference` afterwards, so a recursive schema is still a tree of values.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

MAX_DEPTH = 64
"""Records, arrays and maps within each other. fastavro crashes the process at about 3,000 levels
(RELIABILITY, fact 5); 64 is what we take of JSON, so whatever comes in as JSON comes out of Avro."""

MAX_ELEMENTS = 100_000
"""Array items and map members in one value. `array<null>` makes 20 million of them out of 5 bytes."""

MAX_BYTES = 16 * 1024 * 1024
"""One framed value. Kafka's own default for a record is 1 MiB (`message.max.bytes`)."""

Kept: TypeAlias = tuple[tuple[str, object], ...]
"""The attributes that tell two logical types apart, as the author wrote them."""


class Missing:
    """What stands where nothing stands: JSON's null is a value."""


MISSING = Missing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A primitive, with its logical type where the bridge knows it.

    Attributes:
        type: `null`, `boolean`, `int`, `long`, `float`, `double`, `bytes` or `string`.
        logical: A logical type that is converted; None: plain, or one that Avro says to ignore.
        precision: Of a decimal.
        scale: Of a decimal.
        kept: For the canonical form.
    """

    type: str
    logical: str | None = None
    precision: int = 0
    scale: int = 0
    kept: Kept = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """A fixed number of bytes; a decimal perhaps, with the meaning of `Scalar`'s attributes."""

    name: str
    size: int
    logical: str | None = None
    precision: int = 0
    scale: int = 0
    kept: Kept = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Enum:
    """One of some symbols."""

    name: str
    symbols: tuple[str, ...]
    kept: Kept = ()
    doc: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """Items of one type; each costs `cost` elements of the budget."""

    items: "Node"
    cost: int
    kept: Kept = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """Named values of one type; each costs `cost` elements of the budget."""

    values: "Node"
    cost: int
    kept: Kept = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Union:
    """One of several types; no two of them read the same JSON."""

    branches: tuple["Node", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One member of a record; `default` is in Avro's JSON form, `MISSING` when there is none."""

    name: str
    type: "Node"
    default: object = MISSING
    doc: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Members by name, in order."""

    name: str
    fields: tuple[Field, ...]
    kept: Kept = ()
    doc: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A named type that was defined before, or is just being defined."""

    name: str


Node: TypeAlias = Scalar | Fixed | Enum | Array | Map | Union | Record | Reference
Named: TypeAlias = Fixed | Enum | Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One whole schema.

    Attributes:
        root: Its type.
        names: Every named type in it, by full name.
        where: The file it came from, for messages.
    """

    root: Node
    names: dict[str, Named] = field(default_factory=dict)
    where: str

    def resolve(self, node: Node) -> Node:
        """Follow a reference to what it names."""
        return self.names[node.name] if isinstance(node, Reference) else node


def branch_name(node: Node) -> str:
    """Name a union's branch as fastavro's tuple notation wants it."""
    match node:
        case Scalar(type=name) | Fixed(name=name) | Enum(name=name):
            return name
        case Record(name=name) | Reference(name=name):
            return name
        case Array():
            return "array"
        case Map():
            return "map"
        case Union():
            raise AssertionError("a union within a union is refused at load")


def children(node: Node) -> Iterator[Node]:
    """List the types directly within a type; a reference has none."""
    match node:
        case Record(fields=fields):
            yield from (member.type for member in fields)
        case Union(branches=branches):
            yield from branches
        case Array(items=inner) | Map(values=inner):
            yield inner
        case Scalar() | Fixed() | Enum() | Reference():
            return
