"""The sink: at most one session at a time."""

import asyncio
from collections.abc import Sequence

from bridge.clock import Clock
from bridge.contracts import Message
from bridge.errors import NotConnected
from bridge.settings import Settings
from bridge.sinks.kafka.connect import require_compression
from bridge.sinks.kafka.names import TopicTemplate
from bridge.sinks.kafka.outcomes import Outcomes
from bridge.sinks.kafka.session import Session
from bridge.sinks.observer import SinkEvents

REQUEST_SECONDS = 10.0


class KafkaSink:
    """See the package for what it guarantees, `bridge.contracts.Sink` for who calls what."""

    def __init__(
        self, settings: Settings, db: int, clock: Clock, events: SinkEvents, *, request_seconds: float = REQUEST_SECONDS
    ) -> None:
        """`request_seconds`: how long a broker may take for one answer before it is asked again, or another one.

        Raises ConfigurationError: `BRIDGE_KAFKA_TOPIC` or `BRIDGE_KAFKA_COMPRESSION` cannot work.
        """
        self._names = TopicTemplate(settings.kafka_topic, db)
        require_compression(settings)
        self._settings = settings
        self._clock = clock
        self._events = events
        self._request_seconds = request_seconds
        self._outcomes = Outcomes()
        self._session: Session | None = None
        self._opening = asyncio.Lock()
        self._lost: str | None = None
        """Why the last session ended, until another one serves."""

    @property
    def connected(self) -> bool:
        """Whether there is a producer that is not known to have failed."""
        return self._session is not None and self._session.alive

    async def open(self) -> None:
        """See `Sink.open`. Does nothing while the last producer still serves."""
        async with self._opening:
            if self.connected:
                return
            if self._session is not None:
                await self._session.close()
                self._lost = self._session.reason
            session = self._session = Session(
                self._settings, self._names, self._outcomes, self._clock, self._events, self._request_seconds
            )
            try:
                await session.start()
            except BaseException:
                if self._session is session:  # and not closed meanwhile
                    self._session = None
                raise
            if self._lost is not None:
                self._events.reconnected(self._lost)
                self._lost = None

    async def publish(self, batch: Sequence[Message]) -> None:
        """See `Sink.publish`."""
        if self._session is None or not self._session.started:
            raise NotConnected("the Kafka sink is not open")
        await self._session.publish(batch)

    async def close(self) -> None:
        """See `Sink.close`. An `open()` under way ends in NotConnected."""
        session, self._session, self._lost = self._session, None, None
        if session is not None:
            await session.close()
