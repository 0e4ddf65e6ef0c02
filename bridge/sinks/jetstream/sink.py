"""The sink: makes sessions."""

from bridge.clock import Clock
from bridge.contracts import Message, Order
from bridge.limits import JetStreamLimits
from bridge.settings import Settings
from bridge.sinks.jetstream.context import Context
from bridge.sinks.jetstream.session import JetStreamSession
from bridge.sinks.observer import SinkEvents
from bridge.sinks.subjects import subjects_of


class JetStreamSink:
    """See the package for what it guarantees, `bridge.contracts.Sink` for who calls what."""

    def __init__(self, settings: Settings, db: int, clock: Clock, limits: JetStreamLimits, events: SinkEvents) -> None:
        """Raises ConfigurationError: `BRIDGE_NATS_SUBJECT` cannot work."""
        self.order = Order.KEY
        self._subjects = subjects_of(settings, db)
        self._context = Context(settings, self._subjects, clock, limits, events)

    async def connect(self) -> JetStreamSession:
        """See `Sink.connect`."""
        session = JetStreamSession(self._context)
        await session.start()
        return session

    def channel(self, message: Message) -> str:
        """The subject; where that depends on the key, its template."""
        return self._subjects.without_key(message)
