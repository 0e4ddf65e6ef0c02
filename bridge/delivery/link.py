"""The keeper of sessions: one at a time, and the next one whenever it has ended.

Guarantees: a session is closed before the next one is made. If sessions end before the broker has acked anything, the
next ones are made ever more slowly; an ack, not just a connection, makes that quick again. It does not know what is
published.
"""

import asyncio
from typing import NoReturn

from bridge.backoff import Backoff
from bridge.contracts import Session, Sink
from bridge.delivery.context import Context
from bridge.errors import NotConnected, Refused


class Link:
    """Keeps a session of the sink. The publisher asks `session()` for it."""

    def __init__(self, sink: Sink, context: Context) -> None:
        self._sink = sink
        self._clock = context.clock
        self._telemetry = context.telemetry
        self._broker = context.broker
        self._backoff = Backoff()
        self._session: Session | None = None
        """The one that serves."""
        self._latest: Session | None = None
        self._up = asyncio.Event()
        self._served = False
        """Whether any session was made."""
        self._proven = False
        """Whether the broker has acked anything on this session."""

    async def keep(self) -> NoReturn:
        """Connect, and again whenever the session has ended. Raises Refused if the first connection is refused."""
        while True:
            session = self._latest = await self._connect()
            self._begin(session)
            reason = await session.ended()
            self.lost(session)
            self._telemetry.sink_lost(reason)
            await session.close()
            if not self._proven:  # the broker let us in, but acked nothing
                await self._clock.sleep(self._backoff.next())

    async def close(self) -> None:
        """When `keep` has ended."""
        if self._latest is not None:
            await self._latest.close()

    async def session(self) -> Session:
        """The one that serves, as soon as there is one."""
        while self._session is None:
            await self._up.wait()
        return self._session

    def lost(self, session: Session) -> None:
        """`session` has ended: the publisher notices that before `keep` does."""
        if self._session is session:
            self._session = None
            self._up.clear()
            self._broker.up = False

    def proven(self) -> None:
        """The broker has acked something."""
        if not self._proven:
            self._proven = True
            self._backoff.reset()

    async def _connect(self) -> Session:
        while True:
            try:
                return await self._sink.connect()
            except NotConnected as error:
                delay = self._backoff.next()
                self._telemetry.sink_unreached(str(error), delay)
            except Refused as error:
                if not self._served:
                    raise
                delay = self._backoff.next()
                self._telemetry.sink_refused(str(error), delay)
            await self._clock.sleep(delay)

    def _begin(self, session: Session) -> None:
        self._session = session
        self._served = True
        self._proven = False
        self._up.set()
        self._broker.up = True
        self._telemetry.sink_connected()
