"""Time as a dependency: each part that waits, or reads the time, is given a `Clock`.

So tests, and a simulation, decide what time it is. Nothing in the source, in delivery or in the sinks reads the
machine's clock or the event loop's; only `SystemClock` does, and `unix_ms`, for records that brokers compare with their
own clocks.
"""

import asyncio
import math
import time
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

BEAT = 0.25
"""Seconds between two beats: the moments at which ticks end."""
EARLY = 0.01
"""By how many seconds a tick may come too soon, so that what ticks again and again does not skip every other beat."""


class Clock(Protocol):
    """What the bridge needs of time. All spans are in seconds."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` seconds."""

    async def tick(self, seconds: float) -> None:
        """Return after about `seconds` seconds, together with others that tick: one wake-up for all of them.

        For what looks at something every now and then. At least `seconds` seconds less `EARLY`, at most `BEAT` more.
        """

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """A context that ends with TimeoutError if its block takes longer than `seconds`; None: no limit."""

    def later(self, seconds: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        """Call `act` after `seconds` seconds, unless the returned handle is cancelled before."""

    async def wait(self, event: asyncio.Event, seconds: float | None) -> bool:
        """Return when `event` is set, or after `seconds` seconds; whether it is set. None: wait without a limit."""

    async def alarm(self, event: asyncio.Event, seconds: float) -> None:
        """Return when `event` is set, which it is after `seconds` seconds at the latest. The cheapest way to wait."""

    async def first(self, tasks: Collection[asyncio.Future[Any]], seconds: float | None) -> bool:
        """Return when any of `tasks` is done, or after `seconds` seconds; whether any is done. Cancels nothing."""

    async def all(self, tasks: Collection[asyncio.Future[Any]], seconds: float | None) -> bool:
        """Return when all of `tasks` are done, or after `seconds` seconds; whether all are. Cancels nothing."""


class SystemClock:
    """The machine's own clock."""

    monotonic = staticmethod(time.monotonic)  # without a call of ours: it is asked dozens of times for one expiration

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await asyncio.sleep(seconds)

    async def tick(self, seconds: float) -> None:
        """See `Clock`."""
        await self.sleep(until_beat(self.monotonic(), seconds))

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """See `Clock`."""
        return asyncio.timeout(seconds)

    def later(self, seconds: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        """See `Clock`."""
        return asyncio.get_running_loop().call_later(seconds, act)

    async def wait(self, event: asyncio.Event, seconds: float | None) -> bool:
        """See `Clock`."""
        if event.is_set():
            return True
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return event.is_set()
        return True

    async def alarm(self, event: asyncio.Event, seconds: float) -> None:
        """See `Clock`."""
        timer = self.later(seconds, event.set)
        try:
            await event.wait()
        finally:
            timer.cancel()

    async def first(self, tasks: Collection[asyncio.Future[Any]], seconds: float | None) -> bool:
        """See `Clock`."""
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)

    async def all(self, tasks: Collection[asyncio.Future[Any]], seconds: float | None) -> bool:
        """See `Clock`."""
        _, waiting = await asyncio.wait(tasks, timeout=seconds)
        return not waiting


def until_beat(now: float, seconds: float) -> float:
    """Seconds to sleep for a tick: to the first beat after `seconds`. A span shorter than a beat stays as it is."""
    if seconds < BEAT:
        return seconds
    return math.ceil((now + seconds - EARLY) / BEAT) * BEAT - now


def unix_ms() -> int:
    """Unix milliseconds, by the machine's clock."""
    return int(time.time() * 1000)
