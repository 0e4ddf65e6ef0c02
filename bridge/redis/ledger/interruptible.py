"""Waits that can be given up from outside, when what they wait for will not come."""

import asyncio
from types import TracebackType


class Interrupted(Exception):
    """The wait was given up. What was begun in it may or may not have happened."""


class Interruptible:
    """Some waits that are given up together."""

    def __init__(self) -> None:
        self._waits = dict[asyncio.Timeout, None]()

    def wait(self) -> "_Wait":
        """The block ends with Interrupted when `interrupt` is called."""
        return _Wait(self._waits)

    def interrupt(self) -> None:
        """Give all of them up, at once."""
        waits, self._waits = self._waits, {}
        for wait in waits:
            wait.reschedule(0)


class _Wait:
    """One of them. No generator: it is entered for each settlement."""

    def __init__(self, waits: dict[asyncio.Timeout, None]) -> None:
        self._waits = waits
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._waits[self._timeout] = None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._waits.pop(self._timeout, None)
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise Interrupted from None
