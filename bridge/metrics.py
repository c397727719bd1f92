"""Every metric, declared in one table with its exact meaning; docs/reference/metrics.md repeats it."""

from collections.abc import Iterator

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
)
from prometheus_client.registry import Collector

# Bounds in seconds: a Kafka round trip on one machine takes 2 ms, a waiting client up to 300 s.
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)

ANSWERS = Counter(
    "bridge_ingress_answers_total",
    "Answers to POST, GET and DELETE on requests, by HTTP status.",
    ["service", "status"],
)
ANSWER_SECONDS = Histogram(
    "bridge_ingress_answer_seconds",
    "From the end of a POST's body to its answer, in seconds; Kafka and the handler included.",
    ["service"],
    buckets=_SECONDS,
)
WAITERS = Gauge("bridge_ingress_waiters", "Clients that wait for a reply right now.")
REFUSED = Counter(
    "bridge_ingress_refused_total",
    "Requests refused at once because their answer would not come in time, by reason.",
    ["service", "reason"],
)
WORKERS = Gauge(
    "bridge_service_workers", "Processes in the group of a service's workers.", ["service"]
)
LAG = Gauge("bridge_service_lag", "Requests written and not finished by the workers.", ["service"])
RECEIVED = Counter(
    "bridge_ingress_received_bytes_total", "Bytes read from clients, heads and bodies."
)
HUNG_UP = Counter(
    "bridge_ingress_hung_up_total",
    "Connections closed because of what a client sent or did not send, by the problem's code.",
    ["code"],
)
LEFT = Counter(
    "bridge_ingress_left_total",
    "Clients that left while they waited; their requests went on.",
)
READY = Gauge("bridge_ingress_ready", "1 when the last probe of every lane came back, else 0.")
WITHOUT_TOPICS = Gauge(
    "bridge_ingress_services_without_topics",
    "Services that are refused because their topics do not exist.",
)
CLOCK_SKEW = Gauge(
    "bridge_clock_skew_seconds", "Broker clock minus own clock, as the last probe measured it."
)
EVENTS = Counter(
    "bridge_ingress_events_total",
    "Events of the reply log that were handed to waiting clients, by kind.",
    ["event"],
)
BATCH_LINES = Counter(
    "bridge_ingress_batch_lines_total",
    "Lines of batches that were answered: completed, accepted, failed, expired, cancelled, refused.",
    ["service", "result"],
)
CLAIMS = Counter(
    "bridge_ingress_claims_total",
    "Requests with an Idempotency-Key: made (its own request), joined (another one's), reused (with "
    "another body, refused); and healed: lost requests that were written again.",
    ["result"],
)
CLAIMS_KNOWN = Gauge("bridge_ingress_claims_known", "Idempotency-Keys in the index of claims.")
HANDLED = Counter(
    "bridge_worker_records_total",
    "Records finished by a worker: completed, failed, dead (a dead letter), expired, cancelled, "
    "skipped (answered before), unreadable or undeliverable (the reply could not be written).",
    ["service", "result"],
)
HANDLER_SECONDS = Histogram(
    "bridge_worker_handler_seconds",
    "Time inside the handler, per attempt, in seconds.",
    ["service"],
    buckets=_SECONDS,
)
IN_HAND = Gauge("bridge_worker_in_hand", "Records taken up and not finished.", ["service"])
RUNNING = Gauge("bridge_worker_handlers", "Handlers that run right now.", ["service"])
ATTEMPTS = Counter(
    "bridge_worker_attempts_total",
    "Times that a handler was run, by how it ended: completed, refused, again (another try may "
    "succeed), dead (none would), expired.",
    ["service", "outcome"],
)
PARTITIONS = Gauge("bridge_worker_partitions", "Partitions that this worker owns.", ["service"])
PARTITION_LAG = Gauge(
    "bridge_worker_lag",
    "Records of an owned partition that are not committed, as the worker last saw its end.",
    ["service", "topic", "partition"],
)
PAUSED = Gauge("bridge_worker_paused", "1 while an operator has the service paused.", ["service"])


class _OfWorker(Collector):
    """What a worker tells: the ingress's gauges would stand at 0, and look like an ingress's."""

    def collect(self) -> Iterator[Metric]:
        for metric in REGISTRY.collect():
            if metric.name.startswith("bridge_worker_") or not metric.name.startswith("bridge_"):
                yield metric


def render() -> tuple[bytes, str]:
    """Return all metrics in the Prometheus text format, with its media type."""
    return generate_latest(), CONTENT_TYPE_LATEST


def render_worker() -> tuple[bytes, str]:
    """Return those of a worker, and of any process."""
    return generate_latest(_OfWorker()), CONTENT_TYPE_LATEST
