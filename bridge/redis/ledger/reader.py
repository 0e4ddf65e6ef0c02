"""Reads ahead in one outbox of several, by a task, so that no other outbox waits for it.

A question is asked, and answered some time later. The next one is asked when the answer was taken. A server that does
not answer is asked again after a while; its source reports what is wrong.
"""

import asyncio
from collections.abc import Callable, Sequence

from bridge.clock import Clock
from bridge.contracts import Entry
from bridge.errors import NotConnected, Refused
from bridge.limits import LedgerLimits
from bridge.redis.ledger.outbox import Outbox
from bridge.redis.ledger.settler import Settler


class Reader:
    """See the module."""

    def __init__(
        self, outbox: Outbox, settler: Settler, clock: Clock, limits: LedgerLimits, answered: Callable[[], None]
    ) -> None:
        """`answered` is called with each answer that may be taken."""
        self.failed = False
        """Whether the last attempt to read failed: there may be more in the outbox than was read."""
        self._outbox = outbox
        self._settler = settler
        self._clock = clock
        self._limits = limits
        self._answered = answered
        self._answer: asyncio.Task[Sequence[Entry]] | None = None

    @property
    def asked(self) -> bool:
        """Whether there is a question whose answer was not taken yet."""
        return self._answer is not None

    def ask(self, limit: int, *, anyway: bool) -> None:
        """Ask, unless a question is open. Asks only if there is news, or `anyway`."""
        if self._answer is None and (anyway or self._outbox.news):
            name = f"read-{self._outbox.shard}"
            self._answer = asyncio.create_task(self._patiently(limit, anyway=anyway), name=name)
            self._answer.add_done_callback(lambda _: self._answered())

    def take(self) -> Sequence[Entry]:
        """The answer, if it is there and has entries."""
        answer = self._answer
        if answer is None or not answer.done():
            return ()
        self._answer = None
        return self._settler.left(answer.result())

    async def read(self, limit: int, *, anyway: bool) -> Sequence[Entry]:
        """Ask, and wait for the answer: there is no other outbox. Raises NotConnected or Refused."""
        return self._settler.left(await self._next(limit, anyway=anyway, alone=True))

    async def _next(self, limit: int, *, anyway: bool, alone: bool) -> Sequence[Entry]:
        if self._settler.owes:
            await self._settler.settle(alone=alone)
        self._settler.asking()
        entries = await self._outbox.next(limit, anyway=anyway)
        self.failed = False
        return entries

    async def _patiently(self, limit: int, *, anyway: bool) -> Sequence[Entry]:
        """The answer; nothing, after a while, if it cannot be read."""
        try:
            return await self._next(limit, anyway=anyway, alone=False)
        except (NotConnected, Refused):
            self.failed = True
            await self._clock.sleep(self._limits.outbox_retry)
            return ()

    def stop(self) -> list[asyncio.Task[Sequence[Entry]]]:
        """Stop reading. Returns the tasks that still have to end."""
        answer, self._answer = self._answer, None
        return [] if answer is None else [answer]
