"""Spans, where the process has an OpenTelemetry SDK; nothing at all where it has none.

The API alone records nothing, but asking it does cost, so whether there is an SDK is found out once,
at the start. Then: a SERVER span per POST, a PRODUCER span that makes its record, whose context the
record carries, and a CONSUMER span that the handler runs in, all of one trace. Without an SDK the
client's own context goes through untouched.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from opentelemetry import trace
from opentelemetry.trace import NoOpTracer, NoOpTracerProvider, ProxyTracerProvider, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Message, Scope, Send

from bridge.envelope import TRACE, Event

Trace = tuple[tuple[str, bytes], ...]

_NAME = "kafka-bridge"
_BROKEN = 500
_propagator = TraceContextTextMapPropagator()


@cache
def find_tracer() -> trace.Tracer | None:
    """Return the tracer of the process's SDK; None: it has none, as on the first call."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, ProxyTracerProvider | NoOpTracerProvider):
        return None
    tracer = provider.get_tracer(_NAME)
    return None if isinstance(tracer, NoOpTracer) else tracer  # OTEL_SDK_DISABLED


@contextmanager
def serve(tracer: trace.Tracer, scope: Scope, send: Send, *, route: str | None) -> Iterator[Send]:
    """Let a request be answered in a SERVER span, a child of its client's.

    Args:
        tracer: Of the SDK.
        scope: The request.
        send: Where its answer goes.
        route: The form of its path, which names the span; None: not known here.

    Yields:
        Where to send the answer: the span notes its status.
    """
    carrier = {
        name.decode(): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in {b"traceparent", b"tracestate"}
    }
    with tracer.start_as_current_span(
        f"{scope['method']} {route or ''}".rstrip(),
        context=_propagator.extract(carrier),
        kind=SpanKind.SERVER,
        attributes={
            "http.request.method": scope["method"],
            "url.path": scope["path"],
            "url.scheme": scope["scheme"],
        },
    ) as span:

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.set_attribute("http.response.status_code", message["status"])
                if message["status"] >= _BROKEN:
                    span.set_status(trace.StatusCode.ERROR)
            await send(message)

        yield note


def create(tracer: trace.Tracer, topic: str, request_id: str, given: Trace) -> Trace:
    """Note that a record was made, and return the context that it carries.

    Args:
        tracer: Of the SDK.
        topic: Where it goes.
        request_id: Its name.
        given: The client's context, which it carries if the SDK has none to give.
    """
    with tracer.start_as_current_span(
        f"create {topic}", kind=SpanKind.PRODUCER, attributes=_facts("create", topic, request_id)
    ):
        carrier: dict[str, str] = {}
        _propagator.inject(carrier)
    return tuple((name, carrier[name].encode()) for name in TRACE if name in carrier) or given


@contextmanager
def process(
    tracer: trace.Tracer, topic: str, request_id: str, given: Trace
) -> Iterator[list[Event]]:
    """Let a record be handled in a CONSUMER span, a child of the one that made it.

    Yields:
        A list, to which the last event is to be added.
    """
    carrier = {name: value.decode("latin-1") for name, value in given}
    ended: list[Event] = []
    with tracer.start_as_current_span(
        f"process {topic}",
        context=_propagator.extract(carrier),
        kind=SpanKind.CONSUMER,
        attributes=_facts("process", topic, request_id),
    ) as span:
        yield ended
        for event in ended:
            span.set_attribute("bridge.event", event.value)
            if event is not Event.COMPLETED:
                span.set_status(trace.StatusCode.ERROR, event.value)


def carry(given: Trace) -> dict[str, str]:
    """Return the context that a handler's own calls belong to: its span's, else the record's.

    Args:
        given: What the record carries.
    """
    carrier: dict[str, str] = {}
    if find_tracer() is not None:
        _propagator.inject(carrier)
    return carrier or {name: value.decode("latin-1") for name, value in given}


def _facts(operation: str, topic: str, request_id: str) -> dict[str, str]:
    """Name what was done, as OpenTelemetry's conventions for messaging do."""
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
        "messaging.message.conversation_id": request_id,
    }
