"""Reads ahead in one outbox of several, by a task, so that no other outbox waits for it.

A question is asked, and answered some time later; the next one is asked when the answer was taken. A server that does
not answer is asked again after a while: that something is wrong with it is for its source to report.
"""

import asyncio
from collections.abc import Sequence

from bridge.clock import Clock
from bridge.contracts import Entry
from bridge.errors import NotConnected, Refused
from bridge.limits import LedgerLimits
from bridge.redis.ledger.outbox import Outbox
from bridge.redis.ledger.settler import Settler


class Reader:
    """See the module."""

    def __init__(self, outbox: Outbox, settler: Settler, clock: Clock, limits: LedgerLimits) -> None:
        self.failed = False
        """Whether the outbox could not be read when it was last asked: there may be more in it than was read."""
        self._outbox = outbox
        self._settler = settler
        self._clock = clock
        self._limits = limits
        self._answer: asyncio.Task[Sequence[Entry]] | None = None

    @property
    def asked(self) -> asyncio.Task[Sequence[Entry]] | None:
        """The question whose answer was not taken yet."""
        return self._answer

    def ask(self, limit: int, *, anyway: bool) -> None:
        """Ask, unless a question is open: where there is news, or `anyway`."""
        if self._answer is None and (anyway or self._outbox.news):
            name = f"read-{self._outbox.shard}"
            self._answer = asyncio.create_task(self._patiently(limit, anyway=anyway), name=name)

    def take(self) -> Sequence[Entry]:
        """The answer, if it is there and has any entries."""
        answer = self._answer
        if answer is None or not answer.done():
            return ()
        self._answer = None
        return answer.result()

    async def read(self, limit: int, *, anyway: bool, alone: bool) -> Sequence[Entry]:
        """Ask, and wait. `alone`: there is no other outbox. Raises NotConnected or Refused."""
        await self._settler.catch_up(alone=alone)
        entries = await self._outbox.next(limit, anyway=anyway)
        self.failed = False
        return entries

    async def _patiently(self, limit: int, *, anyway: bool) -> Sequence[Entry]:
        """Nothing, after a while, where it cannot be read."""
        try:
            return await self.read(limit, anyway=anyway, alone=False)
        except (NotConnected, Refused):
            self.failed = True
            await self._clock.sleep(self._limits.outbox_retry)
            return ()

    def stop(self) -> list[asyncio.Task[Sequence[Entry]]]:
        """Read no more. What is still to be ended."""
        answer, self._answer = self._answer, None
        return [] if answer is None else [answer]
