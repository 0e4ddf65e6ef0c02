"""Sinks: where expirations go. `create` makes the one that the settings ask for; each imports its client lazily."""

from typing import Protocol

from bridge.clock import Clock
from bridge.contracts import Sink
from bridge.errors import ConfigurationError
from bridge.settings import Settings
from bridge.sinks.observer import SinkEvents

__all__ = ["BrokerSink", "SinkEvents", "create"]


class BrokerSink(Sink, Protocol):
    """A sink that readiness can ask for its health."""

    @property
    def connected(self) -> bool:
        """Whether a publish has a chance now. False before `open()`, after `close()`, and while the broker is gone."""


def create(settings: Settings, db: int, clock: Clock, events: SinkEvents) -> BrokerSink:
    """The sink of `settings.sink`, not opened yet; `db` is the number of the Redis database.

    Raises ConfigurationError for settings that no server could make work.
    """
    match settings.sink:
        case "jetstream":
            from bridge.sinks.jetstream import JetStreamSink  # noqa: PLC0415 - only its own sink imports nats

            return JetStreamSink(settings, db, clock, events)
        case "stdout":
            from bridge.sinks.stdout import StdoutSink  # noqa: PLC0415 - likewise

            return StdoutSink()
        case _:
            raise ConfigurationError([f"BRIDGE_SINK: this version has no sink {settings.sink.value!r} yet"])
