"""What delivery has settled of one outbox, and its server has not accepted yet.

Guarantees: bounded. What is kept is settled before the outbox is read again, so that it is not published once more.
Entries that are settled while the outbox is read are not published once more either: the answer may be older. Only the
last settlements are kept. The entries of older ones are read and sent once more, under the same ids.
"""

import asyncio
from collections.abc import Sequence
from itertools import islice

from bridge.contracts import Entry, Settlement
from bridge.errors import NotConnected, Refused
from bridge.limits import LedgerLimits
from bridge.redis.ledger.letters import weight
from bridge.redis.ledger.outbox import Outbox


class Settler:
    """See the module."""

    def __init__(self, outbox: Outbox, limits: LedgerLimits) -> None:
        self._outbox = outbox
        self._limits = limits
        self._owed: dict[bytes, Settlement] = {}
        """By the id of the entry."""
        self._meanwhile: set[bytes] | None = None
        """Ids of entries that delivery has finished since the outbox was asked; None if no question is open."""
        self._task: asyncio.Task[None] | None = None

    def owe(self, settlement: Settlement) -> None:
        """Keep this one, to be settled by `settle` or `start`."""
        self._owed[settlement.id] = settlement
        if self._meanwhile is not None:
            self._meanwhile.add(settlement.id)

    def asking(self) -> None:
        """The outbox is about to be asked what is in it."""
        self._meanwhile = set(self._owed)

    def left(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """The entries of its answer that delivery has not finished by now."""
        done, self._meanwhile = self._meanwhile, None
        return [entry for entry in entries if entry.id not in done] if done else entries

    @property
    def owes(self) -> bool:
        """Whether anything is kept, and can be settled now."""
        return bool(self._owed) and self._outbox.ours

    async def settle(self, *, alone: bool) -> None:
        """Settle what is kept; what the server does not accept stays.

        `alone`: there is no other outbox that could go on meanwhile. Then, if this bridge holds the lease, raises
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
            size += sum(map(weight, settlement.dead))
            if some and size > self._limits.reply_bytes:
                break
            some.append(settlement)
        return some

    def start(self) -> asyncio.Task[None]:
        """Settle what is kept in a task: the present one, if there is one."""
        if self._task is None or ended(self._task):
            self._task = asyncio.create_task(self.settle(alone=False), name=f"settle-{self._outbox.shard}")
        return self._task

    def stop(self) -> list[asyncio.Task[None]]:
        """Stop settling. Returns the tasks that still have to end."""
        self._owed.clear()
        return [] if self._task is None else [self._task]


def ended(task: asyncio.Task[None]) -> bool:
    """Whether the task has ended. Raises its error, unless it was cancelled: its shard is gone."""
    if task.done() and not task.cancelled():
        task.result()
    return task.done()
