"""Traces, where the standard `OTEL_*` variables ask for them: one for each expiration, from its deadline to the ack.

The trace's id is the CloudEvents id, and its spans have ids that follow from that: so whichever bridge sends a message,
and however often, it says the same (`traceparent`). The times are Redis's, so the spans are given when they are over.
Whether a trace is sampled depends on its id alone. No span holds a key.

Guarantees: nothing of OpenTelemetry is imported unless it is asked for. Spans wait in a bounded queue, and are dropped
where it is full: a slow collector holds up nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from bridge.expiration import Event, Expiration, FieldExpiration

EXTRA = "pip install 'expiry-bridge[otel]'"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
NS_PER_MS = 1_000_000
_LOW = (1 << 64) - 1
_CLAIM, _PUBLISH = 0x5555555555555555, 0xAAAAAAAAAAAAAAAA
"""By which the ids of these spans differ from that of the first one."""


class Untraceable(Exception):
    """Traces are asked for, and cannot be made: why."""


def asked_for(environ: Mapping[str, str]) -> bool:
    """Whether the environment wants traces. Raises Untraceable: of a kind that there is not."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "")
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    if not exporter and not any(environ.get(name) for name in ENDPOINTS):
        return False
    if exporter not in {"", "otlp"}:
        raise Untraceable("OTEL_TRACES_EXPORTER must be otlp")
    protocol = next((name for name in PROTOCOLS if environ.get(name)), None)
    if protocol is not None and environ[protocol] != PROTOCOL:
        raise Untraceable(f"{protocol} must be {PROTOCOL}")
    return True


def tracer_of(environ: Mapping[str, str], *, source: str, db: int, sink: str) -> "Tracer | None":
    """None where no traces are wanted. Raises Untraceable."""
    if not asked_for(environ):
        return None
    try:
        return Tracer(source, db, sink)
    except ImportError as error:
        raise Untraceable(f"{error.name} is not installed: {EXTRA}") from None
    except Exception as error:  # noqa: BLE001 - of the library, about variables that only it knows
        raise Untraceable(f"the OTEL_* variables do not work ({type(error).__name__})") from None


class Tracer:
    """See the module."""

    def __init__(self, source: str, db: int, sink: str) -> None:
        """Raises ImportError where the extra is not installed."""
        from opentelemetry import trace  # noqa: PLC0415 - see the module
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415

        from bridge import __version__  # noqa: PLC0415 - it is for this alone

        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "expiry-bridge"}))
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._sampler: Any = provider.sampler
        self._processor: Any = BatchSpanProcessor(OTLPSpanExporter())
        self._trace = trace
        self._span: Any = ReadableSpan
        self._same = {
            "resource": provider.resource,
            "instrumentation_scope": InstrumentationScope("expiry-bridge", __version__),
        }
        self._attributes = {
            "db.system.name": "redis",
            "db.namespace": str(db),
            "messaging.system": sink,
            "cloudevents.event_source": source,
        }

    def traceparent(self, id_: str) -> str:
        """What a message says of its trace, as W3C Trace Context has it: the span of its publication is the parent."""
        trace_id = int(id_, 16)
        return f"00-{id_}-{trace_id & _LOW ^ _PUBLISH:016x}-{'01' if self._sampled(trace_id) else '00'}"

    def acked(self, events: Iterable[Event], now_ms: float) -> None:
        """The broker has acked the messages of these, at this time of Redis's clock."""
        for event in events:
            if isinstance(event, Expiration | FieldExpiration) and self._sampled(trace_id := int(event.id, 16)):
                self._give(event, trace_id, int(now_ms))

    def close(self) -> None:
        """Give what waits to the collector. Blocks for some seconds where that is down."""
        self._processor.shutdown()

    def _sampled(self, trace_id: int) -> bool:
        return bool(self._sampler.should_sample(None, trace_id, "expiration").decision.is_sampled())

    def _give(self, event: Expiration | FieldExpiration, trace_id: int, acked_ms: int) -> None:
        low, kinds = trace_id & _LOW, self._trace.SpanKind
        root = self._context(trace_id, low)
        claimed = event.observed_ms
        due = claimed if event.deadline_ms is None else min(event.deadline_ms, claimed)
        acked = max(acked_ms, claimed)
        attributes = self._attributes | {"cloudevents.event_id": event.id, "expiry_bridge.via": str(event.via)}
        spans = [("expiration", root, None, kinds.INTERNAL, due, acked)]
        if event.deadline_ms is not None:
            spans.append(("claim", self._context(trace_id, low ^ _CLAIM), root, kinds.INTERNAL, due, claimed))
        spans.append(("publish", self._context(trace_id, low ^ _PUBLISH), root, kinds.PRODUCER, claimed, acked))
        for name, context, parent, kind, start, end in spans:
            self._processor.on_end(
                self._span(
                    name,
                    context=context,
                    parent=parent,
                    kind=kind,
                    attributes=attributes,
                    start_time=start * NS_PER_MS,
                    end_time=end * NS_PER_MS,
                    **self._same,
                )
            )

    def _context(self, trace_id: int, span_id: int) -> Any:  # noqa: ANN401 - the library's, which is imported late
        return self._trace.SpanContext(trace_id, span_id, is_remote=False, trace_flags=self._trace.TraceFlags(1))
