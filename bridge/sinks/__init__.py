"""Sinks: where expirations go. `create` makes the one that the settings ask for; each imports its client lazily."""

from bridge.clock import Clock
from bridge.contracts import Sink
from bridge.limits import Limits
from bridge.settings import Settings, SinkKind
from bridge.sinks.observer import SinkEvents

__all__ = ["SinkEvents", "create"]


def create(settings: Settings, db: int, clock: Clock, limits: Limits, events: SinkEvents) -> Sink:
    """The sink of `settings.sink`, not connected yet; `db` is the number of the Redis database.

    Raises ConfigurationError for settings that no server could make work.
    """
    match settings.sink:
        case SinkKind.JETSTREAM:
            from bridge.sinks.jetstream import JetStreamSink  # noqa: PLC0415 - only its own sink imports nats

            return JetStreamSink(settings, db, clock, limits.jetstream, events)
        case SinkKind.KAFKA:
            from bridge.sinks.kafka import KafkaSink  # noqa: PLC0415 - likewise aiokafka

            return KafkaSink(settings, db, clock, limits.kafka, events)
        case SinkKind.REDIS:
            from bridge.sinks.redis import RedisSink  # noqa: PLC0415 - likewise, and the source's connections

            return RedisSink(settings, db, clock, limits.wire, events)
        case SinkKind.STDOUT:
            from bridge.sinks.stdout import StdoutSink  # noqa: PLC0415 - likewise

            return StdoutSink(clock)
