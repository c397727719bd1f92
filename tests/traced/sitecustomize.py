"""An SDK for the processes of one test: each span becomes a line of the file TEST_SPANS.

Python imports a module of this name at its start, as `opentelemetry-instrument` makes it do.
"""

import os
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor


def _line(span: ReadableSpan) -> str:
    return f"{span.to_json(indent=None)}\n"


_provider = TracerProvider()
_out = Path(os.environ["TEST_SPANS"]).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115 - as long as the process
_provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=_out, formatter=_line)))
trace.set_tracer_provider(_provider)
