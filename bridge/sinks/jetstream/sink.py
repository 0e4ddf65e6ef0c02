"""The sink: at most one session at a time."""

import asyncio
from collections.abc import Sequence

from bridge.clock import Clock
from bridge.contracts import Message
from bridge.errors import NotConnected
from bridge.settings import Settings
from bridge.sinks.jetstream.session import Session
from bridge.sinks.observer import SinkEvents
from bridge.sinks.subjects import SubjectTemplate

ACK_SECONDS = 5.0


class JetStreamSink:
    """See the package for what it guarantees, `bridge.contracts.Sink` for who calls what."""

    def __init__(
        self, settings: Settings, db: int, clock: Clock, events: SinkEvents, *, ack_seconds: float = ACK_SECONDS
    ) -> None:
        """`ack_seconds`: how long a batch may be without any new ack before what is missing is sent again.

        Raises ConfigurationError: `BRIDGE_NATS_SUBJECT` cannot work.
        """
        self._settings = settings
        self._subjects = SubjectTemplate(settings.nats_subject, db)
        self._clock = clock
        self._events = events
        self._ack_seconds = ack_seconds
        self._session: Session | None = None
        self._changing = asyncio.Lock()
        self._lost: str | None = None
        """Why the last session ended, until another one serves."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection that is not known to be broken."""
        return self._session is not None and self._session.alive

    async def open(self) -> None:
        """See `Sink.open`. Does nothing while the last connection still serves."""
        async with self._changing:
            if self.connected:
                return
            if self._session is not None:
                await self._session.close()
                self._lost = self._session.reason
                self._session = None
            session = Session(self._settings, self._subjects, self._clock, self._events, self._ack_seconds)
            await session.start()
            self._session = session
            if self._lost is not None:
                self._events.reconnected(self._lost)
                self._lost = None

    async def publish(self, batch: Sequence[Message]) -> None:
        """See `Sink.publish`."""
        if self._session is None:
            raise NotConnected("the NATS sink is not open")
        await self._session.publish(batch)

    async def close(self) -> None:
        """See `Sink.close`."""
        async with self._changing:
            if self._session is not None:
                await self._session.close()
            self._session = self._lost = None
