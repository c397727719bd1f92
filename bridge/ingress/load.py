"""Refusing at once: whoever would wait in vain is told so, from figures kept fresh beside the requests.

A request costs a look into a dict and some comparisons. One round for all services asks Kafka in
the background, every 2 s, twice a second where workers fall behind; without news nothing is refused.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

from bridge import metrics
from bridge.errors import BridgeError, NoWorkersError, OverloadedError, UnavailableError
from bridge.ingress.job import Job
from bridge.ingress.lanes import Lanes
from bridge.kafka import Backlog, Groups
from bridge.pace import NoWorkers, Observation, Pace, Refusal
from bridge.service import Service

_log = structlog.get_logger("bridge.ingress")

CALM_S, BUSY_S, AWAY_S = 2.0, 0.5, 5.0
"""Seconds between rounds: usually, while a service has more than its workers hold, without answer."""
REST = 10
"""After a round, so many times as long as it took: many services are looked at less often."""


class Load:
    """What this process knows of the workers of its services; used in its event loop only.

    Args:
        services: By name.
        lanes: The own lanes; they also say how many partitions a service has.
        chance: Draws 62 random bits.
        no_worker_s: Seconds without any worker after which nobody shall wait; 0: never.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        lanes: Lanes,
        *,
        chance: Callable[[], int],
        no_worker_s: float,
    ) -> None:
        self._services = services
        self.lanes = lanes
        self._chance = chance
        self._paces = {
            name: Pace(concurrency=service.worker.concurrency, no_worker_s=no_worker_s)
            for name, service in services.items()
        }
        self._wakened = asyncio.Event()
        self._is_told = False

    def admit(
        self, service: Service, *, wait_s: float, deadline_s: float, principal: str | None
    ) -> None:
        """Count a request that is about to be written, or refuse one that would wait in vain.

        Ask before anything is written. Who does not wait (`wait_s` 0) is never refused.

        Raises:
            NoWorkersError: No worker has been there for a while; nothing was written.
            OverloadedError: Its turn would come too late; nothing was written.
        """
        pace = self._paces[service.name]
        if wait_s > 0:
            at_s = asyncio.get_running_loop().time()
            refusal = pace.decide(at_s, wait_s=wait_s, deadline_s=deadline_s, principal=principal)
            if refusal is not None:
                metrics.REFUSED.labels(service.name, _reason(refusal)).inc()
                raise self._error(refusal, service)
        pace.taken += 1
        if pace.is_busy:
            self._wakened.set()

    def expected_s(self, service: Service) -> float:
        """Estimate how long a request takes that was just admitted; 0: not known, or no time."""
        return self._paces[service.name].expected_s(asyncio.get_running_loop().time())

    def note_answer(self, service: Service, took_s: float, expected_s: float) -> None:
        """Learn how long a request took, and was expected to, from its writing to its reply."""
        at_s = asyncio.get_running_loop().time()
        self._paces[service.name].note_answer(at_s, took_s, expected_s)

    def admit_job(self, job: Job) -> None:
        """Count a job, or refuse one whose client would wait in vain.

        Raises:
            As `admit`.
        """
        request = job.request
        deadline_ms = request.deadline_ms or 0  # the ingress always sets one
        self.admit(
            job.service,
            wait_s=0.0 if job.is_patient else job.wait_s,
            deadline_s=(deadline_ms - self.lanes.now_ms()) / 1000,
            principal=request.principal,
        )

    def describe(self, service: Service) -> dict[str, object]:
        """Return the live figures of a service for the directory; None: not known."""
        pace = self._paces[service.name]
        last = pace.last
        return {
            "workers": None if last is None else last.members,
            "lag": None if last is None else last.lag,
            "rate": None if pace.rate is None else round(pace.rate, 1),
        }

    async def run(self, groups: Groups) -> None:
        """Keep the figures fresh until cancelled."""
        while True:
            loop = asyncio.get_running_loop()
            begun_s = loop.time()
            is_answered = await self.look(groups)
            took_s = loop.time() - begun_s
            is_calm = all(pace.last and not pace.is_busy for pace in self._paces.values())
            self._wakened.clear()
            await asyncio.sleep(self._jitter(max(BUSY_S if is_answered else AWAY_S, REST * took_s)))
            if is_answered and is_calm:  # a burst need not wait for the next round
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._jitter(CALM_S - BUSY_S)):
                        await self._wakened.wait()

    async def look(self, groups: Groups) -> bool:
        """Ask for all services at once; tell whether there was an answer."""
        wanted = {
            (service.group, service.requests_topic): self.lanes.partitions(service)
            for service in self._services.values()
            if self.lanes.partitions(service)
        }
        taken = {name: pace.taken for name, pace in self._paces.items()}
        if not wanted:
            return True
        try:
            found = await groups.look(wanted)
        except BridgeError as trouble:
            self._tell(trouble)
            return False
        except Exception as error:  # noqa: BLE001 - without news all are taken; without us none would be
            _log.error("load-broke", exc_info=error)
            return False
        self._is_told = False
        at_s = asyncio.get_running_loop().time()
        for name, service in self._services.items():
            backlog = found.get((service.group, service.requests_topic))
            if backlog is not None:
                self._paces[name].observe(_seen(at_s, backlog), taken[name])
                self._publish(name)
        return True

    def _tell(self, trouble: BridgeError) -> None:
        if not self._is_told:
            _log.warning("workers-not-seen", reason=str(trouble))
        self._is_told = True

    def _publish(self, name: str) -> None:
        last = self._paces[name].last
        if last is not None:
            metrics.WORKERS.labels(name).set(last.members)
            metrics.LAG.labels(name).set(last.lag)

    def _jitter(self, seconds: float) -> float:
        """Spread over 0.75 to 1.25, so that replicas do not ask in step."""
        return seconds * (0.75 + (self._chance() & 0xFFFF) / 0x1FFFE)

    def _error(self, refusal: Refusal, service: Service) -> UnavailableError:
        error: UnavailableError
        if isinstance(refusal, NoWorkers):
            error = NoWorkersError(
                f"no worker of {service.name} has been there for {refusal.for_s:.0f} s: start one, "
                "or send Prefer: respond-async to have the request kept for it"
            )
        else:
            whose = "your share of the work" if refusal.is_share else "the deadline"
            error = OverloadedError(
                f"{service.name} would answer in about {refusal.expected_s:.1f} s, and {whose} "
                f"allows for {refusal.limit_s:.1f} s: try again after Retry-After"
            )
        # Spread, so that those who were refused together do not come back together.
        error.retry_after_s = round(
            refusal.retry_after_s * (1 + 3 * (self._chance() & 0xFF) / 0xFF)
        )
        return error


def _reason(refusal: Refusal) -> str:
    if isinstance(refusal, NoWorkers):
        return "no-workers"
    return "share" if refusal.is_share else "overloaded"


def _seen(at_s: float, backlog: Backlog) -> Observation:
    return Observation(
        at_s=at_s, members=backlog.members, committed=backlog.committed, ends=backlog.ends
    )
