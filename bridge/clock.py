"""Time as a dependency: whoever waits, or asks what time it is, is given a `Clock`.

So tests, and a simulation, decide what time it is. Nothing in the source, in delivery or in the sinks reads the
machine's clock or the event loop's; only `SystemClock` does.
"""

import asyncio
import time
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol


class Clock(Protocol):
    """What the bridge needs of time. All spans are in seconds."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` seconds."""

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """A context that ends in TimeoutError when what is inside takes longer than `seconds`; None: no limit."""

    async def wait(self, event: asyncio.Event, seconds: float | None) -> bool:
        """Return when `event` is set, or after `seconds` seconds; whether it is set. None: wait without a limit."""

    async def first(self, tasks: Collection[asyncio.Future[Any]], seconds: float | None) -> bool:
        """Return when any of `tasks` is done, or after `seconds` seconds; whether any is done. Cancels nothing."""

    async def all(self, tasks: Collection[asyncio.Future[Any]], seconds: float | None) -> bool:
        """Return when all of `tasks` are done, or after `seconds` seconds; whether all are. Cancels nothing."""


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """See `Clock`."""
        return asyncio.timeout(seconds)

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

    async def first(self, tasks: Collection[asyncio.Future[Any]], seconds: float | None) -> bool:
        """See `Clock`."""
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)

    async def all(self, tasks: Collection[asyncio.Future[Any]], seconds: float | None) -> bool:
        """See `Clock`."""
        _, waiting = await asyncio.wait(tasks, timeout=seconds)
        return not waiting
