"""The worker while it works: offsets move, fetching pauses, keys keep their order."""

import asyncio
from collections import defaultdict

import confluent_kafka as ck
import pytest
from prometheus_client import REGISTRY

from bridge.registry import load_services
from bridge.service import Service
from tests.stack import Stack, post, until
from tests.working import work_during

pytestmark = pytest.mark.timeout(120)


def committed(stack: Stack, service: str) -> int:
    """Sum what the running group has committed; asking does not join it."""
    name = stack.name(service)
    asker = ck.Consumer({"bootstrap.servers": stack.kafka, "group.id": f"bridge.{name}"})
    try:
        places = [ck.TopicPartition(f"{name}.requests", partition) for partition in range(4)]
        return sum(max(0, place.offset) for place in asker.committed(places, timeout=10))
    finally:
        asker.close()


def test_offsets_are_committed_while_the_worker_runs(stack: Stack) -> None:
    """A commit from a second thread once waited until the polls ended, so: never."""
    stack.make_services("echo")
    stack.start_worker("echo")
    _, url = stack.start_ingress()

    for number in range(20):
        post(url, stack.name("echo"), {"text": f"{number}"})

    until(lambda: committed(stack, "echo") == 20, timeout_s=5, what="20 offsets are committed")
    post(url, stack.name("echo"), {"text": "x"})
    until(lambda: committed(stack, "echo") == 21, timeout_s=5, what="one more is committed")


def test_more_than_is_in_hand_waits_in_kafka_and_keys_keep_their_order(stack: Stack) -> None:
    stack.make_services("echo")
    service = load_services(stack.schemas)[stack.name("echo")]
    # Idempotent: without it a retry, as on a topic this young, may change the order in the log.
    writer = ck.Producer({"bootstrap.servers": stack.kafka, "enable.idempotence": True})
    count, keys = 3000, 50
    for number in range(count):
        text = f"key-{number % keys}"
        writer.produce(
            service.requests_topic,
            service.encode({"text": text, "sleep_s": 0.01}),
            text,
            headers={
                "bridge-request-id": f"{number}",
                "bridge-reply-to": service.replies_topic,
                "bridge-reply-partition": "0",
            },
        )
    writer.flush(30)

    worker = stack.start_worker("echo")

    until(lambda: committed(stack, "echo") == count, timeout_s=60, what="all are committed")
    assert worker.child.poll() is None
    order: dict[int, list[int]] = defaultdict(list)
    for reply in stack.read_replies("echo"):
        if reply.event is not None and reply.event.is_last:
            number = int(reply.request_id)
            order[number % keys].append(number)
    assert sum(len(numbers) for numbers in order.values()) == count
    assert all(numbers == sorted(numbers) for numbers in order.values())


def test_a_worker_that_has_enough_in_hand_fetches_no_more(stack: Stack) -> None:
    stack.make_services("echo")
    service = load_services(stack.schemas)[stack.name("echo")]
    count = 12_000
    write_many(stack, service, count)
    most = 0.0

    def is_at_work() -> bool:
        nonlocal most
        most = max(most, read("bridge_worker_in_hand", service=service.name))
        return read("bridge_worker_records_total", service=service.name, result="completed") > 600

    asyncio.run(
        work_during(stack, "echo", lambda: until(is_at_work, timeout_s=60, what="600 are done"))
    )

    print(f"\n{count} records wait, 320/s can be done: {most:.0f} in hand at most")
    # Each of four partitions is paused at 500; a batch of 1,000 may take it there.
    assert 1_000 <= most < 4 * (500 + 1_000)


def test_a_partition_that_is_paused_stays_so_when_another_worker_joins(stack: Stack) -> None:
    stack.make_services("echo")
    service = load_services(stack.schemas)[stack.name("echo")]
    write_many(stack, service, 16_000)

    def in_hand() -> float:
        return read("bridge_worker_in_hand", service=service.name)

    def completed() -> float:
        return read("bridge_worker_records_total", service=service.name, result="completed")

    def see_another_join() -> float:
        until(lambda: in_hand() >= 4 * 500, timeout_s=20, what="all four partitions are full")
        full = in_hand()
        stack.start_worker("echo")
        until(lambda: in_hand() < full - 2 * 250, timeout_s=20, what="two are given up")
        begun, most = completed(), [in_hand()]

        def is_over() -> bool:
            most.append(in_hand())
            return completed() > begun + 600

        until(is_over, timeout_s=20, what="600 more are done")
        return max(most)

    found: list[float] = []
    asyncio.run(work_during(stack, "echo", lambda: found.append(see_another_join())))

    print(f"\n{found[0]:.0f} in hand at most, of two partitions that wait with thousands")
    assert found[0] < 2 * (500 + 1_000)


def write_many(stack: Stack, service: Service, count: int) -> None:
    """Write requests that take 0.2 s each, with keys of their own."""
    writer = ck.Producer({"bootstrap.servers": stack.kafka, "enable.idempotence": True})
    body = service.encode({"text": "x", "sleep_s": 0.2})
    for number in range(count):
        writer.produce(service.requests_topic, body, f"{number}")
    writer.flush(30)


def read(metric: str, **labels: str) -> float:
    """Read a metric of this process; 0 when there is none yet."""
    return REGISTRY.get_sample_value(metric, labels) or 0.0


def test_a_service_that_moves_to_a_second_worker_and_back_loses_nothing(stack: Stack) -> None:
    stack.make_services("echo")
    stack.start_worker("echo")
    _, url = stack.start_ingress()
    asked = 0

    for _ in range(2):
        second = stack.start_worker("echo")
        pids: set[int] = set()
        for number in range(2000):
            answer = post(url, stack.name("echo"), {"text": f"{number % 30}"})
            assert answer.status_code == 200
            pids.add(answer.json()["pid"])
            asked += 1
            if second.pid in pids and number >= 30:
                break
        assert second.pid in pids
        assert second.stop() == 0

    replies = stack.read_replies("echo")
    ended = [reply.request_id for reply in replies if reply.event and reply.event.is_last]
    assert len(ended) == len(set(ended)) == asked


def test_what_is_written_to_the_replay_topic_is_worked_on_and_answered_there(stack: Stack) -> None:
    stack.make_services("echo")
    service = load_services(stack.schemas)[stack.name("echo")]
    stack.start_worker("echo")
    stack.start_worker("echo")
    writer = ck.Producer({"bootstrap.servers": stack.kafka})
    for partition in range(4):
        headers: list[tuple[str, str | bytes | None]] = [
            ("bridge-request-id", b"again-%d" % partition),
            ("bridge-reply-to", service.replay_replies_topic.encode()),
            ("bridge-replay-id", b"r"),
        ]
        body = service.encode({"text": f"{partition}"})
        writer.produce(service.replay_topic, body, "k", partition, headers=headers)
    writer.flush(10)

    until(
        lambda: len(stack.read(service.replay_replies_topic)) == 4,
        timeout_s=30,
        what="each partition's is answered",
    )
