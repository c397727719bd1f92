"""Two principals at once, in any order: neither ever learns anything of the other (scenario 47)."""

import asyncio
import json
import random  # noqa: TID251 - its seed is printed, so that a failure can be run again
import re
import secrets
from collections import Counter
from dataclasses import dataclass, field

import httpx
import pytest

from bridge.envelope import Event
from tests.broker.guarded import Bridge, bearer

NAMES = ("ann", "ben")
MARKER = re.compile(r"(ann|ben)-[0-9a-f]{16}")
ACTORS = 12
COLLECTION = "/v1/services/{service}/requests"
ONE = COLLECTION + "/{request_id}"


@dataclass
class Traffic:
    """What several actors do to one bridge, and what should not have happened.

    Attributes:
        owners: Of every request whose client has its answer: who asked.
        cancelled: Requests that their owners have asked to cancel.
        leaks: What somebody learnt of another's request.
        done: How often each thing was done, and with what status.
    """

    bridge: Bridge
    client: httpx.AsyncClient
    chance: random.Random
    left: int
    owners: dict[str, str] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    leaks: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    async def act(self) -> None:
        """Do one thing after the other until enough is done."""
        while self.left > 0:
            self.left -= 1
            who = self.chance.choice(NAMES)
            step = self.chance.choices((self.ask, self.ask_many, self.look), (4, 1, 12))[0]
            await step(who)

    async def ask(self, who: str) -> None:
        headers, sleep_s = self.chance.choice(
            (
                ({}, 0.0),
                ({}, 0.02),
                ({"prefer": "respond-async"}, 1.0),
                ({"prefer": "wait=0.02"}, 1.0),
                ({"bridge-deadline": "0.1"}, 0.2),
            )
        )
        body = self._body(who, sleep_s)
        answer = await self._send(who, "POST", COLLECTION, content=body, headers=headers)
        self._note(who, answer.json())

    async def ask_many(self, who: str) -> None:
        answer = await self._send(
            who,
            "POST",
            COLLECTION + "/batch",
            content="\n".join(self._body(who, 0.02) for _ in range(3)),
            headers={"content-type": "application/x-ndjson"},
        )
        for line in answer.text.splitlines():
            result = json.loads(line)
            if "summary" not in result:
                self._note(who, result.get("problem", result))

    async def look(self, who: str) -> None:
        if not self.owners:
            return
        name = self.chance.choice(list(self.owners))
        method = self.chance.choice(("GET", "GET", "GET", "DELETE"))
        is_own = self.owners[name] == who
        if is_own and method == "DELETE":
            self.cancelled.add(name)
        headers = self.chance.choice(({}, {"prefer": "wait=0.05"}))
        answer = await self._send(who, method, ONE, request_id=name, headers=headers)
        self.done[f"{'own' if is_own else 'other'} {method} {answer.status_code}"] += 1
        is_hidden = answer.status_code == 404 and "bridge-state" not in answer.headers
        if is_hidden == is_own:
            self.leaks.append(f"{who} {method} {name}: {answer.status_code} {answer.text}")

    def _note(self, who: str, answer: dict[str, str]) -> None:
        """Remember whose a request is; one that was refused has an ID, and no log."""
        if answer.get("outcome") == "not_accepted":
            self.done[f"refused {answer['code']}"] += 1
        else:
            self.owners[answer["request_id"]] = who

    def _body(self, who: str, sleep_s: float) -> str:
        """A request whose content only its owner may see."""
        return json.dumps(
            {
                "text": f"{who}-{secrets.token_hex(8)}",
                "sleep_s": sleep_s,
                "do": self.chance.choice(("reply", "progress", "teapot", "break")),
            }
        )

    async def _send(
        self,
        who: str,
        method: str,
        path: str,
        *,
        request_id: str = "",
        headers: dict[str, str] | None = None,
        content: str | None = None,
    ) -> httpx.Response:
        answer = await self.client.request(
            method,
            self.bridge.url(path, request_id, replica=self.chance.randrange(2)),
            headers={
                "content-type": "application/json",
                **bearer(self.chance.choice(("ann", "ann-new")) if who == "ann" else who),
                **(headers or {}),
            },
            content=content,
        )
        told = set(MARKER.findall(answer.text + str(answer.headers)))
        if told - {who}:
            self.leaks.append(f"{who} {method} {path}: {answer.text}")
        return answer


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.full)])
async def test_no_order_of_things_leaks(guarded: Bridge, count: int) -> None:
    seed = secrets.randbits(32)
    async with httpx.AsyncClient(timeout=60) as client:
        traffic = Traffic(guarded, client, random.Random(seed), count)  # noqa: S311 - not a secret
        async with asyncio.TaskGroup() as actors:
            for _ in range(ACTORS):
                actors.create_task(traffic.act())

    print(f"{count} steps, seed {seed}, {len(traffic.owners)} requests: {dict(traffic.done)}")
    assert traffic.leaks == []
    assert min(traffic.done["own GET 200"], traffic.done["other GET 404"]) > 0
    events = [r for r in await guarded.read_replies() if r.request_id in traffic.owners]
    assert all(reply.principal == traffic.owners[reply.request_id] for reply in events)
    ended = {reply.request_id for reply in events if reply.event is Event.CANCELLED}
    assert ended <= traffic.cancelled
    print(f"{len(events)} events, {len(ended)} cancelled: 0 leaks")
