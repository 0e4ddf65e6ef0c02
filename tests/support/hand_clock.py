"""A clock that stands still until a test lets time pass."""

import asyncio
import heapq
from itertools import count

from bridge.clock import SystemClock


class HandClock(SystemClock):
    """Time passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()

    def monotonic(self) -> float:
        """See `Clock`."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        until = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), until))
        await until

    async def tick(self, seconds: float) -> None:
        """See `Clock`. Here nothing is saved by ticking together."""
        await self.sleep(seconds)

    async def passes(self, seconds: float) -> None:
        """So much time passes, and whatever waits for a part of it goes on."""
        end = self.now + seconds
        await turns()
        while self._sleepers and self._sleepers[0][0] <= end:
            self.now, _, sleeper = heapq.heappop(self._sleepers)
            if not sleeper.done():
                sleeper.set_result(None)
            await turns()
        self.now = end


async def turns() -> None:
    """Let all go on that can."""
    for _ in range(10):
        await asyncio.sleep(0)
