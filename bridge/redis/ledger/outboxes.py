"""The outboxes of all shards as delivery sees them: the Outbox of `bridge/contracts.py`.

Guarantees what `outbox.py` does of each; and that none of them waits for another, whose server may be frozen: all are
asked side by side, and what a server does not take is kept for a while and tried again.
"""

import asyncio
from collections.abc import Sequence
from itertools import islice

from bridge.contracts import Entry, Settlement
from bridge.errors import NotConnected, Refused
from bridge.redis.ledger.outbox import Outbox
from bridge.tasks import end, happens

POLL_INTERVAL = 1.0
"""Seconds after which the outboxes are looked at unasked, should a wake-up ever be missing."""
RETRY_INTERVAL = 0.5
"""Seconds before one of several is asked again that could not be read."""
PATIENCE = 0.2
"""Seconds that settling waits for one server of several."""
SETTLE_ENTRIES = 500
"""Entries settled in one step."""
OWED_ENTRIES = 1_000
"""Settlements kept of one shard. Older ones are forgotten: the entries are sent once more, under the same ids."""


class Outboxes:
    """Claimed expirations of all shards."""

    def __init__(self) -> None:
        self._outboxes: list[Outbox] = []
        self._asked: dict[Outbox, asyncio.Task[Sequence[Entry]]] = {}
        """Those whose answers nobody has taken yet, the oldest questions first."""
        self._unread: set[Outbox] = set()
        """Those that could not be read when they were asked."""
        self._paying: dict[Outbox, asyncio.Task[None]] = {}
        self._owed: dict[Outbox, dict[bytes, Settlement]] = {}
        """By the id of the entry: what could not be settled."""
        self._draining = False
        self._wake = asyncio.Event()

    def add(self, outbox: Outbox) -> None:
        """One more; it is to call `wake`."""
        self._outboxes.append(outbox)

    def remove(self, outbox: Outbox) -> None:
        """It is of a shard that is no more."""
        self._outboxes.remove(outbox)
        self._owed.pop(outbox, None)
        self._unread.discard(outbox)
        for tasks in (self._asked, self._paying):
            if task := tasks.pop(outbox, None):
                task.cancel()

    async def close(self) -> None:
        """Nobody reads any more."""
        await end([*self._asked.values(), *self._paying.values()])

    def wake(self) -> None:
        """There may be more to read."""
        self._wake.set()

    def drain(self) -> None:
        """Nothing will be added any more: `read` returns nothing once all is read, instead of waiting."""
        self._draining = True
        self._wake.set()

    @property
    def depth(self) -> int:
        """Expirations waiting, as last heard."""
        return sum(outbox.depth for outbox in self._outboxes)

    async def read(self, limit: int) -> Sequence[Entry]:
        """See `Outbox.read`."""
        asked = False
        while True:
            self._wake.clear()
            asked = asked or self._draining
            if len(self._outboxes) == 1 and not self._asked:  # no task, which costs more than all else here
                if entries := await self._next(self._outboxes[0], limit, asked=asked):
                    return entries
            else:
                self._ask(limit, asked=asked)
            while self._asked and not self._wake.is_set():
                await self._answered()
                if entries := self._taken():
                    return entries
            if self._asked or self._wake.is_set():
                asked = False
            elif self._draining and asked and not self._unread:
                return ()
            else:
                asked = not await happens(self._wake, POLL_INTERVAL)

    def _ask(self, limit: int, *, asked: bool) -> None:
        """All that have news; with `asked`, the others, too."""
        for outbox in self._outboxes:
            if outbox not in self._asked and (asked or outbox.news):
                self._asked[outbox] = asyncio.create_task(self._next_of_several(outbox, limit, asked=asked))

    async def _next_of_several(self, outbox: Outbox, limit: int, *, asked: bool) -> Sequence[Entry]:
        """Nothing, after a while, where its server does not answer: the shard tells what is wrong with that."""
        try:
            return await self._next(outbox, limit, asked=asked)
        except (NotConnected, Refused):
            self._unread.add(outbox)
            await asyncio.sleep(RETRY_INTERVAL)
            return ()

    async def _next(self, outbox: Outbox, limit: int, *, asked: bool) -> Sequence[Entry]:
        if outbox.ours and self._owed.get(outbox):
            await self._pay(outbox)  # else it would be read, and published, once more
        entries = await outbox.next(limit, asked=asked)
        self._unread.discard(outbox)
        return entries

    async def _answered(self) -> None:
        """Return when one of those that were asked has answered, or there is more to ask for."""
        woken = asyncio.create_task(self._wake.wait())
        try:
            waited = [woken, *self._asked.values()]
            await asyncio.wait(waited, timeout=POLL_INTERVAL, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end([woken])

    def _taken(self) -> Sequence[Entry]:
        """One answer with any entries."""
        for outbox, task in list(self._asked.items()):
            if task.done():
                del self._asked[outbox]
                if entries := task.result():
                    return entries
        return ()

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """See `Outbox.settle`. What one server of several does not take is tried again with the next, or later."""
        by_shard = {outbox.shard: outbox for outbox in self._outboxes}
        to_pay = dict[Outbox, None]()
        for settlement in settlements:
            if outbox := by_shard.get(settlement.shard):  # else it has moved: whoever has it now reads it again
                self._owed.setdefault(outbox, {})[settlement.id] = settlement
                to_pay[outbox] = None
        if len(self._outboxes) == 1:
            for outbox in to_pay:
                await self._pay(outbox)
        elif to_pay:
            await self._pay_several(list(to_pay))

    async def _pay_several(self, outboxes: Sequence[Outbox]) -> None:
        """Wait for none of them for long, unless the process is about to end."""
        for outbox in outboxes:
            if outbox not in self._paying or _ended(self._paying[outbox]):
                self._paying[outbox] = asyncio.create_task(self._pay(outbox))
        tasks = {self._paying[outbox] for outbox in outboxes}
        done, _ = await asyncio.wait(tasks, timeout=None if self._draining else PATIENCE)
        for task in done:
            _ended(task)

    async def _pay(self, outbox: Outbox) -> None:
        """Settle what is owed. Raises NotConnected or Refused where there is no other outbox."""
        owed = self._owed.get(outbox, {})
        try:
            while some := list(islice(owed.values(), SETTLE_ENTRIES)):
                await outbox.settle(some)
                for settlement in some:
                    owed.pop(settlement.id, None)
        except (NotConnected, Refused):
            if len(self._outboxes) == 1 and outbox.ours:
                raise
            for entry_id in list(islice(owed, max(len(owed) - OWED_ENTRIES, 0))):
                del owed[entry_id]  # the next epoch reads it again


def _ended(task: asyncio.Task[None]) -> bool:
    """Whether it has; raises what it has ended with, unless that is the end of its shard."""
    if task.done() and not task.cancelled():
        task.result()
    return task.done()
