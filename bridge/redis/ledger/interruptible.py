"""Waits that are given up from outside: what they wait for will not come."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Interrupted(Exception):
    """The wait was given up; what was begun in it may have happened, or not."""


class Interruptible:
    """Some waits that are given up together."""

    def __init__(self) -> None:
        self._waits = set[asyncio.Timeout]()

    @asynccontextmanager
    async def wait(self) -> AsyncIterator[None]:
        """What is inside ends in Interrupted when `interrupt` is called."""
        wait = asyncio.timeout(None)
        try:
            async with wait:
                self._waits.add(wait)
                yield
        except TimeoutError:
            if wait.expired():
                raise Interrupted from None
            raise
        finally:
            self._waits.discard(wait)

    def interrupt(self) -> None:
        """Give all of them up, at once."""
        waits, self._waits = self._waits, set()
        for wait in waits:
            wait.reschedule(0)
