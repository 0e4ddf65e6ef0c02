"""The connection of delivery to its sink: opened again whenever it is lost, by one task, however many find it lost."""

import asyncio
from contextlib import suppress
from typing import NoReturn

from bridge.backoff import Backoff
from bridge.clock import Clock
from bridge.contracts import Sink
from bridge.errors import NotConnected, Refused
from bridge.telemetry.events import Telemetry

WATCH_INTERVAL = 1.0
"""Seconds between questions whether the sink is still connected."""


class Link:
    """Keeps the sink open: whoever finds it lost says so, one task opens it again, all others wait."""

    def __init__(self, sink: Sink, clock: Clock, telemetry: Telemetry) -> None:
        self._sink = sink
        self._clock = clock
        self._telemetry = telemetry
        self._session = 0
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._failures = asyncio.Queue[BaseException]()

    async def keep(self) -> NoReturn:
        """Open the sink, and open it again whenever it is lost."""
        while True:
            await self._open()
            while not self._down.is_set():
                await self._watch()

    async def failed(self) -> NoReturn:
        """Raise what `fail` is called with: at once, also while the sink is being opened again."""
        raise await self._failures.get()

    async def up(self) -> int:
        """The number of the session, once the sink is open."""
        await self._up.wait()
        return self._session

    def lost(self, session: int, reason: str) -> None:
        """The sink failed in `session`."""
        if session == self._session and self._up.is_set():
            self._up.clear()
            self._down.set()
            self._telemetry.sink_lost(reason)

    def fail(self, error: BaseException) -> None:
        """A batch ended in what cannot be tried again."""
        self._failures.put_nowait(error)

    async def _watch(self) -> None:
        """Wait for somebody to find it lost; ask now and then, since while nothing is published nobody does."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WATCH_INTERVAL):
                await self._down.wait()
        if not self._sink.connected:
            self.lost(self._session, "the connection to the broker was lost")

    async def _open(self) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._sink.open()
            except NotConnected as error:
                delay = backoff.next()
                self._telemetry.sink_unreached(str(error), delay)
            except Refused as error:
                if not self._session:
                    raise
                delay = backoff.next()
                self._telemetry.sink_refused(str(error), delay)
            else:
                break
            await self._clock.sleep(delay)
        self._session += 1
        self._down.clear()
        self._up.set()
        self._telemetry.sink_connected()
