"""Replays as they lie in `bridge.replays`: plans, wishes, checkpoints, and who runs which.

Pure: records in, records out. Four kinds of keys, each with one writer, so nothing overwrites what
another has said: `<id>` the plan, written once; `<id>/want` what the operator wants;
`<id>/at/<partition>` how far it is, written with the copies in one transaction;
`<service>/running` who runs a replay of the service.
"""

from enum import StrEnum

import msgspec

from bridge.envelope import Record
from bridge.errors import RecordError, UnknownRequestError
from bridge.plan import Plan

TOPIC = "bridge.replays"
PARTITIONS = 2
SAID, REACHED = 0, 1
"""Checkpoints have a partition of their own. A transaction that its runner left open hides what
comes after it in its partition, and a wish must be heard at once."""
MAX_BYTES = 16 * 1024 * 1024
"""What a record of the topic may have: a plan names its records."""
HELD_MS = 30_000
"""A holder that has not said a word for so long has lost its service to whoever comes."""
SAME_HELD_MS = 6_000
"""And its replay to another runner of the same replay, which goes on where it was: sooner, as for
a worker's partitions. Two of one replay cannot harm it: they share a `transactional.id`."""
BEAT_S = 1.0
"""How often a holder says that it is there, in seconds."""


class Want(StrEnum):
    """What an operator wants of a replay."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class State(StrEnum):
    """How it is with a replay.

    Attributes:
        PLANNED: Nothing is copied yet.
        RUNNING: Somebody copies.
        PAUSED: It waits for `resume`.
        STOPPED: It was begun, and nobody runs it.
        DONE: All is copied.
        CANCELLED: It was given up.
    """

    PLANNED = "planned"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    DONE = "done"
    CANCELLED = "cancelled"


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator has said last."""

    want: Want
    by: str = ""


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """How far a replay is with one partition; all counts are of the whole replay so far.

    Attributes:
        next: The next offset to look at.
        done: Whether there is no more.
        copied: Records written.
        left: Records of the plan that were not, by reason.
    """

    next: int
    done: bool = False
    copied: int = 0
    left: dict[str, int] = {}


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A word of somebody who runs a replay, or wants to.

    Attributes:
        replay: Which.
        runner: Names the process.
        by: For people: who and where.
        released: Whether it has let go.
    """

    replay: str
    runner: str
    by: str = ""
    released: bool = False


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who runs a replay of a service, and when it was heard of last, Unix milliseconds."""

    claim: Claim
    at_ms: int


class Replays:
    """The log, folded."""

    def __init__(self) -> None:
        self.plans: dict[str, Plan] = {}
        self.wishes: dict[str, Wish] = {}
        self.reached: dict[str, dict[int, Reached]] = {}
        self.holders: dict[str, Holder] = {}

    def take(self, record: Record) -> None:
        """Merge one record; what cannot be read is passed over, for it may be a later version's."""
        name = (record.key or b"").decode(errors="replace")
        value = record.value
        if not name or value is None:
            return
        try:
            self._take(name, value, record.timestamp_ms)
        except (msgspec.DecodeError, ValueError):
            return

    def _take(self, name: str, value: bytes, time_ms: int) -> None:
        first, _, rest = name.partition("/")
        if not rest:
            self.plans.setdefault(first, msgspec.json.decode(value, type=Plan))
        elif rest == "want":
            self.wishes[first] = msgspec.json.decode(value, type=Wish)
        elif rest.startswith("at/"):
            partition = int(rest[3:])
            found = msgspec.json.decode(value, type=Reached)
            self.reached.setdefault(first, {})[partition] = found
        elif rest == "running":
            self._hear(first, msgspec.json.decode(value, type=Claim), time_ms)

    def _hear(self, service: str, claim: Claim, time_ms: int) -> None:
        """Decide in log order who holds a service: the first, until it lets go or falls silent."""
        holder = self.holders.get(service)
        if holder is not None and holder.claim.runner != claim.runner:
            held_ms = SAME_HELD_MS if holder.claim.replay == claim.replay else HELD_MS
            if time_ms - holder.at_ms < held_ms:
                return
        if not claim.released:
            self.holders[service] = Holder(claim=claim, at_ms=time_ms)
        elif holder is not None and holder.claim.runner == claim.runner:
            del self.holders[service]

    def find(self, replay_id: str) -> Plan:
        """Return a plan.

        Raises:
            UnknownRequestError: There is none of that ID.
        """
        if replay_id not in self.plans:
            raise UnknownRequestError(
                f"no replay {replay_id}: `kbridge replay list` names those that there are"
            )
        return self.plans[replay_id]

    def find_state(self, plan: Plan, now_ms: int) -> State:
        """Tell how it is with a replay."""
        reached = self.reached.get(plan.id, {})
        if all(p in reached and reached[p].done for p, part in plan.parts.items() if part.selected):
            return State.DONE
        want = self.wishes.get(plan.id, Wish(want=Want.RUN)).want
        if want is Want.CANCEL:
            return State.CANCELLED
        if want is Want.PAUSE:
            return State.PAUSED
        holder = self.holders.get(plan.service)
        is_held = holder is not None and holder.claim.replay == plan.id
        if is_held and holder is not None and now_ms - holder.at_ms < HELD_MS:
            return State.RUNNING
        return State.STOPPED if reached else State.PLANNED


def format_plan(plan: Plan) -> Record:
    """Make the record of a plan.

    Raises:
        RecordError: It names more records than one can hold.
    """
    record = _make(plan.id, plan)
    if len(record.value or b"") > MAX_BYTES - 1024:
        raise RecordError(
            f"the plan of {plan.selected} scattered records has {len(record.value or b'')} bytes: "
            f"want at most {MAX_BYTES}; plan a shorter range, or fewer partitions, at a time"
        )
    return record


def format_wish(replay_id: str, wish: Wish) -> Record:
    """Make the record of what an operator wants."""
    return _make(f"{replay_id}/want", wish)


def format_claim(service: str, claim: Claim) -> Record:
    """Make the record of somebody who runs, or wants to."""
    return _make(f"{service}/running", claim)


def format_reached(replay_id: str, partition: int, reached: Reached) -> Record:
    """Make a checkpoint."""
    return _make(f"{replay_id}/at/{partition}", reached, REACHED)


def _make(name: str, said: object, partition: int = SAID) -> Record:
    return Record(
        topic=TOPIC, key=name.encode(), value=msgspec.json.encode(said), partition=partition
    )
