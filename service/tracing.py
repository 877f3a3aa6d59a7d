"""One trace from a request over a runner to the events it leads to, told to an OpenTelemetry collector. Off by default.

The SDK traces too, as its own variables say. Here nothing is shared with it: neither the provider nor the current span.
Off, each call is one comparison, and the exporter is not imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from multiprocessing import current_process
from typing import TYPE_CHECKING, Literal

from structlog.contextvars import bound_contextvars

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

Kind = Literal["INTERNAL", "SERVER", "CLIENT"]
Value = str | int

_EXPORT_SECONDS = 2
"""For one post to the collector; a stop waits for the last one."""

_provider: TracerProvider | None = None
_current: ContextVar[Span | None] = ContextVar("fanout_span", default=None)


def start_tracing(endpoint: str | None) -> None:
    """Trace what this process does from here on and post it to `endpoint`, OTLP over HTTP. Call after the last fork."""
    global _provider
    if endpoint is None or _provider is not None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": "fanout", "service.instance.id": current_process().name})
    _provider = TracerProvider(resource=resource)
    exporter = OTLPSpanExporter(endpoint, timeout=_EXPORT_SECONDS)
    _provider.add_span_processor(BatchSpanProcessor(exporter))


def stop_tracing() -> None:
    """Send what has not been sent. Blocking."""
    global _provider
    if _provider is not None:
        _provider.shutdown()
        _provider = None


class Begun:
    """A span that goes on, and is current, until it is ended in the same task."""

    def __init__(self, name: str, kind: Kind, parent: str | None, attributes: dict[str, Value]) -> None:
        from opentelemetry.trace import SpanKind

        assert _provider is not None
        self.span = _provider.get_tracer("fanout").start_span(
            name, _context(parent), SpanKind[kind], {f"fanout.{key}": value for key, value in attributes.items()}
        )
        self._token: Token[Span | None] = _current.set(self.span)

    @property
    def trace_id(self) -> str:
        return f"{self.span.get_span_context().trace_id:032x}"

    def end(self) -> None:
        _current.reset(self._token)
        self.span.end()


def begin(name: str, kind: Kind = "INTERNAL", parent: str | None = None, **attributes: Value) -> Begun | None:
    """Begin a span below `parent`, a W3C `traceparent`, else below the current one; None while tracing is off."""
    return None if _provider is None else Begun(name, kind, parent, attributes)


@contextmanager
def traced(name: str, kind: Kind = "INTERNAL", parent: str | None = None, **attributes: Value) -> Iterator[None]:
    """As `begin`, for the length of a block, whose log lines have the trace's id."""
    begun = begin(name, kind, parent, **attributes)
    if begun is None:
        yield
        return
    try:
        with bound_contextvars(trace_id=begun.trace_id):
            yield
    except BaseException as error:
        begun.span.record_exception(error)
        raise
    finally:
        begun.end()


def traceparent() -> str | None:
    """The current span as another process is told of it; None while there is none."""
    span = _current.get()
    if span is None:
        return None
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, set_span_in_context(span))
    return carrier.get("traceparent")


def note(what: str, **attributes: Value) -> None:
    """Something that happened in the current span, if there is one."""
    span = _current.get()
    if span is not None:
        span.add_event(what, {f"fanout.{key}": value for key, value in attributes.items()})


def _context(parent: str | None) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if parent is not None:
        return TraceContextTextMapPropagator().extract({"traceparent": parent}, Context())
    current = _current.get()
    return Context() if current is None else set_span_in_context(current, Context())
