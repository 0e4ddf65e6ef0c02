"""What delivery has settled of one outbox, and its server has not taken yet.

Guarantees: bounded; what is kept is settled before the outbox is read again, so that it is not published once more.
Older settlements than the last ones are forgotten: their entries are read, and sent, once more, under the same ids.
"""

import asyncio
from itertools import islice

from bridge.contracts import Settlement
from bridge.errors import NotConnected, Refused
from bridge.expiration import Expiration
from bridge.limits import LedgerLimits
from bridge.redis.ledger.outbox import Outbox


class Settler:
    """See the module."""

    def __init__(self, outbox: Outbox, limits: LedgerLimits) -> None:
        self._outbox = outbox
        self._limits = limits
        self._owed: dict[bytes, Settlement] = {}
        """By the id of the entry."""
        self._task: asyncio.Task[None] | None = None

    def owe(self, settlement: Settlement) -> None:
        """Keep this one, to be settled by `settle` or `start`."""
        self._owed[settlement.id] = settlement

    async def catch_up(self, *, alone: bool) -> None:
        """Settle what is kept before the outbox is read. `alone`: see `settle`."""
        if self._owed and self._outbox.ours:
            await self.settle(alone=alone)

    async def settle(self, *, alone: bool) -> None:
        """Settle what is kept; what is not taken stays.

        `alone`: there is no other outbox that could go on meanwhile. Then, where this bridge holds the lease, raises
        NotConnected or Refused.
        """
        try:
            while some := self._next():
                await self._outbox.settle(some)
                for settlement in some:
                    self._owed.pop(settlement.id, None)
        except (NotConnected, Refused):
            if alone and self._outbox.ours:
                raise
            for entry_id in list(islice(self._owed, max(len(self._owed) - self._limits.owed_entries, 0))):
                del self._owed[entry_id]

    def _next(self) -> list[Settlement]:
        """What to settle in one step: bounded, and at least one, as large as its dead letters may be."""
        some, size = list[Settlement](), 0
        for settlement in islice(self._owed.values(), self._limits.settle_entries):
            size += sum(len(letter.event.key) for letter in settlement.dead if isinstance(letter.event, Expiration))
            if some and size > self._limits.reply_bytes:
                break
            some.append(settlement)
        return some

    def start(self) -> asyncio.Task[None]:
        """Settle what is kept by a task: the one under way, if there is one."""
        if self._task is None or ended(self._task):
            self._task = asyncio.create_task(self.settle(alone=False), name=f"settle-{self._outbox.shard}")
        return self._task

    def stop(self) -> list[asyncio.Task[None]]:
        """Settle no more. What is still to be ended."""
        self._owed.clear()
        return [] if self._task is None else [self._task]


def ended(task: asyncio.Task[None]) -> bool:
    """Whether it has. Raises what it ended with, unless it was cancelled: its shard is gone."""
    if task.done() and not task.cancelled():
        task.result()
    return task.done()
