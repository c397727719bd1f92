"""A service: its contract and its settings, out of three small files.

`schemas/<name>/request.avsc`, `reply.avsc` and `service.toml`. Every setting has a default, so
the last may be empty or absent; an unknown key, a wrong type or a value out of range is an error,
and all of them are told at once. A `Service` is immutable and used from any thread.
"""

import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, Self, TypeAlias
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bridge import ids
from bridge.codec import HEAD_BYTES, Schema, parse_json, read_key
from bridge.errors import ContractError, RecordError
from bridge.forward import check_forwarded, check_list, check_returned

Kind: TypeAlias = Literal["one", "stream", "none"]

MAX_DEADLINE_S = 7 * 86_400
"""No deadline is further away, in seconds: requests are kept for seven days by default."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}\Z")

FAILURE = Schema.load(
    {
        "type": "record",
        "name": "Failure",
        "namespace": "bridge",
        "fields": [
            {"name": "code", "type": "string"},
            {"name": "message", "type": "string"},
            {"name": "retryable", "type": "boolean"},
            {"name": "details", "type": {"type": "map", "values": "string"}},
        ],
    },
    where="bridge.Failure",
)
"""What a `failed` event carries."""

PROGRESS = Schema.load(
    {
        "type": "record",
        "name": "Progress",
        "namespace": "bridge",
        "fields": [
            {"name": "fraction", "type": ["null", "double"]},
            {"name": "message", "type": "string"},
        ],
    },
    where="bridge.Progress",
)
"""What a `progress` event carries."""


class _Settings(BaseModel):
    """A table of service.toml; no key unknown, no value bent into shape."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class WorkerSettings(_Settings):
    """How a worker handles the requests of a service: `[worker]`.

    Attributes:
        concurrency: Handlers that run at once in one worker process.
        attempts: Tries before a request ends as `failed`.
        backoff_s: Longest wait before the second try, in seconds; doubles from try to try.
        max_backoff_s: Where the doubling ends, in seconds.
        timeout_s: How long one try may take, in seconds.
        dedupe_s: How far back a new owner of a partition looks for work that is done, in seconds.
        group: Consumer group; None: `bridge.<service>`.
        dialect: Whose headers the worker reads and writes.
        isolation: Where a handler runs.
        memory_bytes: Most memory that a handler's process may take; None: no limit.
        exactly_once: Whether reply, dead letter and commit are one Kafka transaction.
    """

    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 16
    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    backoff_s: Annotated[float, Field(ge=0, le=3600)] = 1.0
    max_backoff_s: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    dedupe_s: Annotated[float, Field(ge=0, le=604_800)] = 600.0
    group: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")] | None = None
    dialect: Literal["bridge", "spring"] = "bridge"
    isolation: Literal["task", "thread", "process"] = "task"
    memory_bytes: Annotated[int, Field(ge=1 << 26, le=1 << 50)] | None = None
    exactly_once: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.memory_bytes is not None and self.isolation != "process":
            raise ValueError('memory_bytes wants isolation = "process": memory of its own')
        if self.max_backoff_s < self.backoff_s:
            raise ValueError(
                f"max_backoff_s = {self.max_backoff_s}: want at least backoff_s, {self.backoff_s}"
            )
        return self


class TopicSettings(_Settings):
    """The shape of a service's topics: `[topics]`.

    Attributes:
        partitions: Of the requests.
        lanes: Partitions of the replies; a request ID can name 4,096 of them.
        replication: Copies of each record; 0: three where there are three brokers, else one.
        retention_s: How long requests are kept, in seconds: what can be replayed.
        result_retention_s: How long results are kept, in seconds: what can be fetched.
    """

    partitions: Annotated[int, Field(ge=1, le=10_000)] = 12
    lanes: Annotated[int, Field(ge=1, le=ids.LANES)] = 16
    replication: Annotated[int, Field(ge=0, le=100)] = 0
    retention_s: Annotated[int, Field(ge=1, le=315_360_000)] = 604_800
    result_retention_s: Annotated[int, Field(ge=1, le=315_360_000)] = 86_400


_Forwarded: TypeAlias = Annotated[str, AfterValidator(check_forwarded)]
_Returned: TypeAlias = Annotated[str, AfterValidator(check_returned)]


class _Http(_Settings):
    idempotency: Literal["optional", "required"] = "optional"
    errors: dict[str, Annotated[int, Field(ge=400, le=599)]] = {}
    forward: Annotated[list[_Forwarded], AfterValidator(check_list)] = []
    return_: Annotated[list[_Returned], AfterValidator(check_list), Field(alias="return")] = []


class _File(_Settings):
    """The whole of service.toml."""

    reply: Kind = "one"
    key: str | None = None
    wait_s: Annotated[float, Field(ge=0, le=300)] = 30.0
    deadline_s: Annotated[float, Field(gt=0, le=MAX_DEADLINE_S)] = 300.0
    effects: Literal["none", "idempotent", "external"] = "idempotent"
    worker: WorkerSettings = WorkerSettings()
    topics: TopicSettings = TopicSettings()
    http: _Http = _Http()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.worker.exactly_once and self.reply == "stream":
            raise ValueError(
                'worker.exactly_once = true with reply = "stream": parts go out before the '
                "transaction ends; choose one of the two"
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service: what goes in, what comes out, and how it is run.

    Attributes:
        name: As in topics, URLs and folders.
        request: Schema of a request.
        reply: Schema of a reply, or of each part; None: there are no replies.
        kind: One reply, a stream of parts and a last one, or none.
        key: The request's field that orders requests; None: they are not ordered.
        wait_s: How long a client waits unless it says otherwise, in seconds.
        deadline_s: How long a request is worth doing unless said otherwise, in seconds.
        worker: How workers handle it.
        topics: The shape of its topics.
        effects: What handling a request again does to the world.
        wants_key: Whether a request without an `Idempotency-Key` is refused.
        http_errors: HTTP status by the code of a handler's refusal.
        forward: Names of the HTTP headers that go onto its requests.
        returned: Names of the headers that a reply may set on the HTTP response.
        read_key: Reads the key's bytes; None without `key`.
    """

    name: str
    request: Schema
    reply: Schema | None
    kind: Kind
    key: str | None
    wait_s: float
    deadline_s: float
    worker: WorkerSettings
    topics: TopicSettings
    effects: Literal["none", "idempotent", "external"]
    wants_key: bool
    http_errors: dict[str, int]
    forward: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()
    read_key: Callable[[object], bytes] | None = None

    @property
    def requests_topic(self) -> str:
        """Where requests are written."""
        return f"{self.name}.requests"

    @property
    def replies_topic(self) -> str:
        """Where reply logs are written."""
        return f"{self.name}.replies"

    @property
    def dead_topic(self) -> str:
        """Where dead letters are written."""
        return f"{self.name}.dead"

    @property
    def replay_topic(self) -> str:
        """Where replays and redrives write."""
        return f"{self.name}.replay"

    @property
    def replay_replies_topic(self) -> str:
        """Where the answers of replays are written."""
        return f"{self.name}.replay-replies"

    @property
    def group(self) -> str:
        """The workers' consumer group."""
        return self.worker.group or f"bridge.{self.name}"

    def encode(self, value: object) -> bytes:
        """Turn parsed JSON into a framed request.

        Raises:
            InvalidPayloadError: It does not fit; with every violation up to 20.
        """
        return self.request.from_json(value)

    def take_binary(self, data: bytes, *, is_framed: bool) -> tuple[bytes, bytes | None]:
        """Turn a request that comes as Avro into a framed one, as strictly as a worker reads it.

        Args:
            data: One value in Avro binary.
            is_framed: Whether the five bytes of the Confluent wire format are in front.

        Returns:
            The framed request as `encode` would make it of the same content, and its key.

        Raises:
            InvalidPayloadError: It is not exactly one request of this contract.
        """
        framed, value = self.request.from_binary(data, is_framed=is_framed)
        if self.key is None or not isinstance(value, dict):
            return framed, None
        item = value[self.key]
        plain = str(item) if isinstance(item, UUID) else item
        return framed, self.key_of({self.key: plain})

    def key_of(self, value: object) -> bytes | None:
        """Read the key out of parsed JSON that `encode` accepts: text in UTF-8, numbers decimal.

        Returns:
            The key, or None when the service has none.

        Raises:
            InvalidPayloadError: The key's field does not fit.
        """
        return None if self.read_key is None else self.read_key(value)

    def decode(self, value: bytes | None) -> object:
        """Turn a framed request into Python values.

        Raises:
            RecordError: It is not a request of this contract.
        """
        return self.request.decode(value)

    def encode_reply(self, value: object) -> bytes:
        """Turn what a handler returned into a framed reply.

        Raises:
            InvalidPayloadError: It does not fit; with every violation up to 20.
            ContractError: The service has no replies.
        """
        if self.reply is None:
            raise ContractError(f'{self.name} has reply = "none": there is nothing to encode')
        return self.reply.from_native(value)

    def encode_reply_json(self, body: bytes) -> bytes:
        """Turn the JSON text of a reply, or of a part, into a framed reply.

        Raises:
            InvalidPayloadError, MalformedBodyError: It does not fit.
            ContractError: The service has no replies.
        """
        if self.reply is None:
            raise ContractError(f'{self.name} has reply = "none": there is nothing to encode')
        return self.reply.from_json(parse_json(body))

    def decode_reply(self, value: bytes | None) -> object:
        """Turn the value of a `part` or `completed` event into Python values.

        Raises:
            RecordError: It is not a reply of this contract.
        """
        if self.reply is None:
            raise RecordError(f'{self.name} has reply = "none": want no value')
        return self.reply.decode(value)

    def give_binary(self, value: bytes | None) -> bytes:
        """Take the frame off the value of a `completed` event, once it has been read as a reply.

        Raises:
            RecordError: It is not a reply of this contract.
        """
        self.decode_reply(value)
        return (value or b"")[HEAD_BYTES:]


def load(name: str, *, request: str, reply: str | None, settings: str) -> Service:
    """Make a service out of its files.

    Args:
        name: Its folder's name.
        request: Text of request.avsc.
        reply: Text of reply.avsc; None: there is no such file.
        settings: Text of service.toml; "" when there is none.

    Raises:
        ContractError: A file is not usable, or they contradict each other; the message names the
            file and the field or key, every one at once for service.toml.
    """
    _check_name(name)
    chosen = _parse_settings(settings, f"{name}/service.toml")
    request_schema = Schema.load(request, where=f"{name}/request.avsc")
    reply_schema = None if reply is None else Schema.load(reply, where=f"{name}/reply.avsc")
    if reply_schema is None and chosen.reply != "none":
        raise ContractError(
            f'{name}/reply.avsc is missing: write it, or set reply = "none" in service.toml'
        )
    index_schemas([request_schema, *([reply_schema] if reply_schema else []), FAILURE, PROGRESS])
    return Service(
        name=name,
        request=request_schema,
        reply=reply_schema,
        kind=chosen.reply,
        key=chosen.key,
        wait_s=chosen.wait_s,
        deadline_s=chosen.deadline_s,
        worker=chosen.worker,
        topics=chosen.topics,
        effects=chosen.effects,
        wants_key=chosen.http.idempotency == "required",
        http_errors=chosen.http.errors,
        forward=tuple(chosen.http.forward),
        returned=tuple(chosen.http.return_),
        read_key=None if chosen.key is None else read_key(request_schema, chosen.key),
    )


def index_schemas(schemas: Iterable[Schema]) -> dict[int, Schema]:
    """Find schemas by their ID; equal ones share one.

    Raises:
        ContractError: Two different schemas have the same ID.
    """
    index: dict[int, Schema] = {}
    for schema in schemas:
        other = index.setdefault(schema.id, schema)
        if other.canonical != schema.canonical:
            raise ContractError(
                f"{schema.where} and {other.where} differ but share the schema ID {schema.id}: "
                "rename a type in one of them"
            )
    return index


def _check_name(name: str) -> None:
    if _NAME.match(name) is None:
        raise ContractError(
            f"service name {name!r}: want 1 to 100 of a-z 0-9 . _ -, a letter or digit first"
        )
    if ".." in name or not name[-1].isalnum() or name == "bridge":
        raise ContractError(
            f"service name {name!r}: want no two dots in a row, a letter or digit last, and not "
            "bridge, whose topics are our own"
        )


def _parse_settings(text: str, where: str) -> _File:
    try:
        return _File.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ContractError(f"{where}: not TOML: {error}") from None
    except ValidationError as error:
        problems = []
        for problem in error.errors(include_url=False):
            path = ".".join(map(str, problem["loc"])) or "the settings"
            found = "" if isinstance(problem["input"], dict) else f" = {problem['input']!r:.60}"
            problems.append(f"{path}{found}: {problem['msg'].removeprefix('Value error, ')}")
        raise ContractError(f"{where}: " + "; ".join(problems)) from None
