"""The lanes of one ingress process: which are its own, whether they work, and the broker's time.

Every lane is probed: a `probe` event written to it and read back shows in one step that the lane is
positioned, that this process may write to it, and how far the broker's clock is from its own. While
a probe is missing the ingress is not ready, and it heals by itself when Kafka comes back.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import NamedTuple

import structlog

from bridge import metrics
from bridge.envelope import EVENT, Event, Record
from bridge.errors import BridgeError, BrokerDownError, OverloadedError, TopicError
from bridge.kafka import Config, Producer, describe_topics, open_lanes
from bridge.service import Service

_log = structlog.get_logger("bridge.ingress")

_PROBE_KEY_PREFIX = "probe-"
_PROBE_PATIENCE_S = 5.0
_QUICK_MS = 500
_RETRY_S = 1.0
_MISSING_S = 5.0
"""Topics that are missing are looked for so often, while other services are served."""
_MAX_FAILED = 60
"""Failed probes in a row after which the readers of the lanes are given up and made anew."""
_MAX_FOLLOWED = 32
"""Foreign lanes followed at once for waiting look-ups; each is a thread and a connection."""
FOLLOW_S, _LEAST_S = 10.0, 0.1
"""To begin following a foreign lane may take so long, where nobody waits for less; and at least."""

Take = Callable[[list[Record]], None]


def learn_skew(known_ms: int, broker_ms: int, before_ms: int, after_ms: int) -> int:
    """Return the broker's clock minus the own one, after one more record was acknowledged.

    The broker has read its clock somewhere between the two readings of the own one. A quick
    acknowledgement says the skew; a slow one only between what it lies, and so whether what is known
    already can be true. (An ingress whose first probe was slow once went by its own clock, minutes
    off.)

    Args:
        known_ms: What is known so far; 0 before anything is.
        broker_ms: The record's time by the broker.
        before_ms: Own clock before it was sent.
        after_ms: Own clock when it was acknowledged.
    """
    lowest_ms, highest_ms = broker_ms - after_ms, broker_ms - before_ms
    if after_ms - before_ms <= _QUICK_MS:
        return (lowest_ms + highest_ms) // 2
    return min(max(known_ms, lowest_ms), highest_ms)


class Lanes:
    """Own lanes, foreign lanes while someone waits for them, and broker time.

    Args:
        config: librdkafka settings.
        services: By name.
        picks: Lane numbers as set or drawn; taken modulo each service's number of lanes.
        name: Tells this process's probes from others'.
        clock_ms: Own clock, Unix milliseconds.

    Attributes:
        without_topics: Services that cannot be served, because their topics do not exist.
    """

    def __init__(
        self,
        config: Config,
        services: Mapping[str, Service],
        picks: tuple[int, ...],
        name: str,
        clock_ms: Callable[[], int],
    ) -> None:
        self._config = config
        self.services = services
        self._picks = picks
        self._key = f"{_PROBE_KEY_PREFIX}{name}".encode()
        self._clock_ms = clock_ms
        self._skew_ms = 0
        self._own: dict[str, tuple[int, ...]] = {}
        self._counts: dict[str, int] = {}
        self._trouble: BridgeError | None = BrokerDownError("the lanes are not positioned yet")
        self._awaited: dict[tuple[str, int], asyncio.Future[None]] = {}
        self._said: type[BridgeError] | None = None
        self._doubted = asyncio.Event()
        self._turn = 0
        self.without_topics: list[str] = []

    def doubt(self) -> None:
        """Probe now: a write has failed, and whoever comes next should be told at once.

        Not more often than once a second, however many fail.
        """
        self._doubted.set()

    def now_ms(self) -> int:
        """Return broker time: own clock plus the measured skew, Unix milliseconds."""
        return self._clock_ms() + self._skew_ms

    @property
    def trouble(self) -> BridgeError | None:
        """Why no request can be taken now; None when all is well."""
        return self._trouble

    def pick(self, service: Service) -> int:
        """Choose the lane of a new request.

        Raises:
            UnavailableError, TopicError: Nothing can be taken for this service now.
        """
        own = self._own.get(service.replies_topic)
        if self._trouble is not None and not isinstance(self._trouble, TopicError):
            raise self._trouble
        if not own:
            raise TopicError(
                f"{service.requests_topic} or {service.replies_topic} does not exist: "
                "run `kbridge topics apply`"
            )
        self._turn += 1
        return own[self._turn % len(own)]

    def count(self, service: Service) -> int:
        """Return how many lanes a service has.

        Raises:
            BrokerDownError, TopicError: Kafka is away, or the topic is: a look-up cannot be made.
        """
        if isinstance(self._trouble, BrokerDownError):
            raise self._trouble
        if service.replies_topic not in self._counts:
            raise TopicError(f"{service.replies_topic} does not exist: run `kbridge topics apply`")
        return self._counts[service.replies_topic]

    def partitions(self, service: Service) -> int:
        """Return how many partitions a service's requests have; 0 while that is not known."""
        return self._counts.get(service.requests_topic, 0)

    def is_own(self, topic: str, lane: int) -> bool:
        """Tell whether this process follows the lane anyway."""
        return lane in self._own.get(topic, ())

    async def run(
        self, producer: Producer, take: Take, on_gap: Callable[[], None], *, probe_s: float
    ) -> None:
        """Hold the lanes until cancelled; whatever breaks is said, waited out and tried again.

        Args:
            producer: Writes probes.
            take: Receives the records of the own lanes.
            on_gap: Called when lanes were placed anew: what came meanwhile is not delivered.
            probe_s: Seconds between probes while all is well.
        """

        def sift(records: list[Record]) -> None:
            take([record for record in records if not self._is_probe(record)])

        while True:
            self._own = {}
            try:
                async with AsyncExitStack() as held:
                    await self._hold(_Holding(held, sift, on_gap), producer, probe_s)
            except BridgeError as error:
                self._say(error)
            except Exception as error:  # noqa: BLE001 - without lanes every client would hang
                _log.error("lanes-broke", exc_info=error)
                self._say(BrokerDownError("the lanes cannot be held: the log says why"))
            await asyncio.sleep(_RETRY_S)

    async def _hold(self, holding: "_Holding", producer: Producer, probe_s: float) -> None:
        """Take lanes and probe them; a failed probe keeps them, for their readers recover alone.

        Raises:
            BridgeError: Too many probes failed in a row: the readers are made anew.
        """
        failed = 0
        loop = asyncio.get_running_loop()
        while True:
            begun_s = loop.time()
            try:
                missing = await self._extend(holding)
                await self._probe(producer)
                failed = 0
            except BridgeError as error:
                failed += 1
                if failed >= _MAX_FAILED:
                    raise
                self._say(error)
            else:
                self._set_ready(missing)
            self._doubted.clear()
            pause_s = _MISSING_S if self.without_topics else probe_s
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s if self._trouble is None else _RETRY_S):
                    await self._doubted.wait()
            await asyncio.sleep(max(0.0, begun_s + _RETRY_S - loop.time()))

    async def _extend(self, holding: "_Holding") -> list[str]:
        """Take our share of lanes that are not held yet; returns services without topics."""
        found = await describe_topics(self._config)
        missing = []
        new: dict[str, tuple[int, ...]] = {}
        for service in self.services.values():
            topic = service.replies_topic
            if topic not in found or service.requests_topic not in found:
                missing.append(service.name)
            else:
                self._counts[topic] = found[topic]
                self._counts[service.requests_topic] = found[service.requests_topic]
                if topic not in self._own:
                    new[topic] = tuple(sorted({pick % found[topic] for pick in self._picks}))
        if new:
            taken = [(topic, lane) for topic, lanes in new.items() for lane in lanes]
            lanes = open_lanes(self._config, taken, holding.take, holding.on_gap)
            await holding.stack.enter_async_context(lanes)
            holding.on_gap()  # who waits has perhaps waited since before the readers were made anew
            self._own |= new
        return missing

    def _say(self, error: BridgeError) -> None:
        """Be not ready, and say why; once per kind of trouble."""
        if self._said is not type(error):
            _log.warning("not-ready", reason=str(error))
            self._said = type(error)
        self._trouble = error
        metrics.READY.set(0)

    def _set_ready(self, missing: list[str]) -> None:
        """Be ready, unless no service at all has topics: one that has none must not stop the others."""
        if missing != self.without_topics:
            _log.warning("topics-missing", services=missing, do="run `kbridge topics apply`")
        self.without_topics = missing
        metrics.WITHOUT_TOPICS.set(len(missing))
        if missing and len(missing) == len(self.services):
            names = ", ".join(missing)
            self._say(TopicError(f"no topics for {names}: run `kbridge topics apply`"))
            return
        metrics.READY.set(1)
        if self._trouble is not None:
            held = [f"{topic}/{lane}" for topic, lanes in self._own.items() for lane in lanes]
            _log.info("ready", lanes=held)
        self._trouble, self._said = None, None

    async def _probe(self, producer: Producer) -> None:
        """Write to every lane and read it back.

        Raises:
            BrokerDownError: Not all came back in time.
        """
        loop = asyncio.get_running_loop()
        lanes = [(topic, lane) for topic, lanes in self._own.items() for lane in lanes]
        self._awaited = {lane: loop.create_future() for lane in lanes}
        send = producer.route(0)
        try:
            async with asyncio.timeout(_PROBE_PATIENCE_S):
                for topic, lane in lanes:
                    before_ms = self._clock_ms()
                    placed = await send(self._probe_record(topic, lane))
                    if placed.is_broker_time:
                        self._skew_ms = learn_skew(
                            self._skew_ms, placed.timestamp_ms, before_ms, self._clock_ms()
                        )
                for future in self._awaited.values():
                    await future
        except TimeoutError:
            raise BrokerDownError("a probe of the own lanes did not come back in time") from None
        metrics.CLOCK_SKEW.set(self._skew_ms / 1000)

    def _probe_record(self, topic: str, lane: int) -> Record:
        headers = [(EVENT, Event.PROBE.value.encode())]
        return Record(topic=topic, key=self._key, value=None, headers=headers, partition=lane)

    def _is_probe(self, record: Record) -> bool:
        if record.key is None or not record.key.startswith(b"probe-"):
            return False
        if dict(record.headers).get(EVENT) != Event.PROBE.value.encode():
            return False
        if record.key == self._key and record.partition is not None:
            future = self._awaited.get((record.topic, record.partition))
            if future is not None and not future.done():
                future.set_result(None)
        return True


class _Holding(NamedTuple):
    """What the own lanes are held with."""

    stack: AsyncExitStack
    take: Take
    on_gap: Callable[[], None]


class Followers:
    """Foreign lanes, each followed for as long as someone waits for it.

    Args:
        config: librdkafka settings.
        take: Receives the records of the lanes.
        on_gap: Called when a lane was placed anew: what came meanwhile is not delivered.
    """

    def __init__(self, config: Config, take: Take, on_gap: Callable[[], None]) -> None:
        self._config = config
        self._take = take
        self._on_gap = on_gap
        self._open: dict[tuple[str, int], _Followed] = {}

    @asynccontextmanager
    async def follow(
        self, topic: str, lane: int, *, limit_s: float = FOLLOW_S
    ) -> AsyncIterator[None]:
        """Follow a lane from its present end; those who wait for one lane share one reader.

        Args:
            topic: Replies of a service.
            lane: A partition of it.
            limit_s: How long this may take to begin, in seconds.

        Raises:
            OverloadedError: Too many foreign lanes are followed already.
            UnavailableError, TopicError: The lane cannot be read, or not in time.
        """
        followed = self._open.get((topic, lane))
        if followed is None:
            if len(self._open) >= _MAX_FOLLOWED:
                raise OverloadedError(
                    f"{_MAX_FOLLOWED} lanes of other replicas are followed already: "
                    "try again in a moment, or without Prefer: wait"
                )
            followed = self._open[topic, lane] = _Followed()
        followed.count += 1
        try:
            await self._begin(followed, (topic, lane), limit_s)
            yield
        finally:
            followed.count -= 1
            if followed.count == 0:
                await asyncio.shield(self._end(followed, (topic, lane)))

    async def _begin(self, followed: "_Followed", lane: tuple[str, int], limit_s: float) -> None:
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + limit_s
        try:
            async with asyncio.timeout_at(ends_s):  # another one opens it just now
                await followed.turn.acquire()
        except TimeoutError:
            raise BrokerDownError(f"{lane[0]}/{lane[1]} cannot be followed in time") from None
        try:
            if not followed.is_open:
                left_s = max(_LEAST_S, ends_s - loop.time())
                await followed.stack.enter_async_context(
                    open_lanes(self._config, [lane], self._take, self._on_gap, limit_s=left_s)
                )
                followed.is_open = True
        finally:
            followed.turn.release()

    async def _end(self, followed: "_Followed", lane: tuple[str, int]) -> None:
        async with followed.turn:
            if followed.count == 0 and self._open.get(lane) is followed:
                del self._open[lane]
                await followed.stack.aclose()


class _Followed:
    """A foreign lane and those who wait for it.

    Attributes:
        count: How many they are.
        turn: Held by whoever opens or closes its reader.
        stack: Closes the reader.
        is_open: There is one.
    """

    def __init__(self) -> None:
        self.count = 0
        self.turn = asyncio.Lock()
        self.stack = AsyncExitStack()
        self.is_open = False
