"""Selection is what a scan by hand finds: random requests, random questions (RELIABILITY 54)."""

import hashlib
from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.ends import STATES, Ends
from bridge.envelope import Event, Headers, Record, Request, format_request, make_reply
from bridge.offsets import Runs
from bridge.plan import Draft, Mode, Selection, Selector, digest
from bridge.registry import load_services
from bridge.where import parse_condition
from tests.stack import SERVICES

ECHO = load_services(SERVICES / "schemas")["echo"]
TOPIC = ECHO.requests_topic
KNOWN_SINCE = 1_500


@dataclass(frozen=True)
class Made:
    """One request, by what the questions ask for."""

    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    tenant: str | None
    text: str | None
    count: int | None
    end: Event | None
    is_answered_here: bool

    @property
    def name(self) -> str:
        return f"r-{self.partition}-{self.offset}"

    @property
    def state(self) -> str:
        if not self.is_answered_here or self.time_ms < KNOWN_SINCE:
            return "unknown"
        return "none" if self.end is None else self.end.value

    def record(self) -> Record:
        reply_to = ECHO.replies_topic if self.is_answered_here else None
        headers: Headers = format_request(Request(request_id=self.name, reply_to=reply_to))
        if self.tenant is not None:
            headers.append(("tenant", self.tenant.encode()))
        if self.count is not None:
            headers += [
                ("bridge-replay-id", b"r"),
                ("bridge-replay-count", b"%d" % self.count),
            ]
        return Record(
            topic=TOPIC,
            key=self.key,
            value=b"??" if self.text is None else ECHO.encode({"text": self.text}),
            headers=headers,
            partition=self.partition,
            offset=self.offset,
            timestamp_ms=self.time_ms,
        )

    def reply(self) -> Record | None:
        if self.end is None:
            return None
        return make_reply(Request(request_id=self.name, reply_to=ECHO.replies_topic), self.end)


MADE = st.lists(
    st.builds(
        Made,
        partition=st.integers(0, 2),
        offset=st.integers(0, 60),
        time_ms=st.integers(1_000, 2_000),
        key=st.sampled_from([None, b"a", b"b"]),
        tenant=st.sampled_from([None, "x", "y"]),
        text=st.sampled_from([None, "one", "two"]),
        count=st.sampled_from([None, None, None, 1, 3]),
        end=st.sampled_from([None, Event.COMPLETED, Event.FAILED, Event.EXPIRED]),
        is_answered_here=st.booleans(),
    ),
    max_size=30,
    unique_by=lambda made: (made.partition, made.offset),
).map(lambda made: sorted(made, key=lambda each: (each.partition, each.offset)))


@dataclass(frozen=True)
class Question:
    """What is asked for, as the oracle takes it."""

    starts: dict[int, int]
    ends: dict[int, int]
    since: int | None
    until: int | None
    key: bytes | None
    tenant: str | None
    text: str | None
    state: str | None
    ids: frozenset[str] | None
    takes_replays: bool

    def judge(self, made: Made) -> str:
        if not (self.is_in_range(made) and self.is_named(made)):
            return ""
        if self.text is not None and made.text != self.text:
            return "unreadable" if made.text is None else ""
        if self.state is not None and made.state != self.state:
            return "unknown" if made.state == "unknown" else ""
        if made.count is not None and not self.takes_replays:
            return "replays"
        return "spent" if (made.count or 0) >= 3 else "selected"

    def is_named(self, made: Made) -> bool:
        if (self.key or made.key) != made.key or (self.tenant or made.tenant) != made.tenant:
            return False
        return self.ids is None or made.name in self.ids

    def is_in_range(self, made: Made) -> bool:
        if (
            not self.starts.get(made.partition, 99)
            <= made.offset
            < self.ends.get(made.partition, 0)
        ):
            return False
        since = made.time_ms if self.since is None else self.since
        until = made.time_ms + 1 if self.until is None else self.until
        return since <= made.time_ms < until

    def selection(self) -> Selection:
        return Selection(
            mode=Mode.REPROCESS,
            topic=TOPIC,
            starts=self.starts,
            ends=self.ends,
            since_ms=self.since,
            until_ms=self.until,
            key=self.key,
            headers=() if self.tenant is None else (("tenant", self.tenant.encode()),),
            where=() if self.text is None else (parse_condition(f"text = {self.text}"),),
            state=self.state,
            ids=self.ids,
            takes_replays=self.takes_replays,
        )


BOUNDS = st.dictionaries(st.integers(0, 2), st.integers(0, 61), max_size=3)
MOMENT = st.none() | st.integers(1_000, 2_001)
QUESTIONS = st.builds(
    Question,
    starts=BOUNDS.map(lambda found: dict.fromkeys(range(3), 0) | found),
    ends=BOUNDS.map(lambda found: dict.fromkeys(range(3), 61) | found),
    since=MOMENT,
    until=MOMENT,
    key=st.sampled_from([None, b"a"]),
    tenant=st.sampled_from([None, "x"]),
    text=st.sampled_from([None, "one"]),
    state=st.sampled_from([None, None, *STATES]),
    ids=st.none()
    | st.sets(st.integers(0, 60)).map(lambda n: frozenset(f"r-1-{each}" for each in n)),
    takes_replays=st.booleans(),
)


def draft_of(made: list[Made], question: Question, sample: int | None = None) -> Draft:
    ends = Ends(ECHO.replies_topic, {0: KNOWN_SINCE, 1: 0})
    for offset, reply in enumerate(each.reply() for each in made):
        if reply is not None:
            ends.take(_at(reply, offset))
    draft = Draft(Selector(question.selection(), ECHO, ends), sample)
    for each in made:
        draft.take(each.record())
    return draft


def _at(record: Record, offset: int) -> Record:
    return Record(
        topic=record.topic,
        key=record.key,
        value=record.value,
        headers=record.headers,
        offset=offset,
    )


@settings(max_examples=1000)
@given(MADE, QUESTIONS)
def test_what_is_selected_and_left_is_what_a_scan_by_hand_finds(
    made: list[Made], question: Question
) -> None:
    judged = [(each, question.judge(each)) for each in made]

    draft = draft_of(made, question)
    found = draft.finish()

    assert [(p, offset) for p, runs in found.items() for offset in runs] == [
        (each.partition, each.offset) for each, why in judged if why == "selected"
    ]
    assert draft.left == Counter(why for _, why in judged if why not in {"", "selected"})
    assert sum(draft.schemas.values()) == sum(map(len, found.values()))


EVERYTHING = Question(
    starts=dict.fromkeys(range(3), 0),
    ends=dict.fromkeys(range(3), 61),
    since=None,
    until=None,
    key=None,
    tenant=None,
    text=None,
    state=None,
    ids=None,
    takes_replays=True,
)


@given(MADE, st.integers(1, 10))
def test_a_sample_is_the_same_every_time_and_part_of_the_whole(made: list[Made], size: int) -> None:
    whole = draft_of(made, EVERYTHING).finish()
    first, again = (draft_of(made, EVERYTHING, size).finish() for _ in range(2))

    assert first == again
    assert sum(map(len, first.values())) == min(size, sum(map(len, whole.values())))
    assert all(set(runs) <= set(whole[partition]) for partition, runs in first.items())


def test_a_digest_is_over_the_mode_and_each_place_in_numeric_order() -> None:
    text = "copy\nt/2/9\nt/2/10\nt/10/0\n"

    found = digest(Mode.COPY, "t", {10: Runs([0]), 2: Runs([9, 10])})

    assert found == hashlib.sha256(text.encode()).hexdigest()
