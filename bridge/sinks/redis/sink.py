"""The sink: makes sessions."""

from bridge.clock import Clock
from bridge.contracts import Message, Order
from bridge.limits import WireLimits
from bridge.settings import Settings
from bridge.sinks.observer import SinkEvents
from bridge.sinks.redis.context import Context
from bridge.sinks.redis.keys import StreamTemplate
from bridge.sinks.redis.session import RedisSession


class RedisSink:
    """See the package for what it guarantees, `bridge.contracts.Sink` for who calls what."""

    def __init__(self, settings: Settings, db: int, clock: Clock, limits: WireLimits, events: SinkEvents) -> None:
        self.order = Order.SHARD
        self._streams = StreamTemplate(settings, db)
        ledger = f"{settings.namespace}:{db}".encode()
        self._context = Context(settings, ledger, self._streams, clock, limits, events)

    async def connect(self) -> RedisSession:
        """See `Sink.connect`."""
        session = RedisSession(self._context)
        await session.start()
        return session

    def channel(self, message: Message) -> str:
        """The stream; where that depends on the key, its template."""
        return self._streams.without_key(message)
