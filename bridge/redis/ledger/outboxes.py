"""The outboxes of all shards as delivery sees them: the Outbox of `bridge/contracts.py`.

Guarantees what `outbox.py` does of each; and that none of them waits for another, whose server may be frozen: all are
asked side by side (`reader.py`), and what a server does not take is kept for a while and tried again (`settler.py`).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bridge.clock import Clock
from bridge.contracts import Entry, Settlement
from bridge.limits import LedgerLimits
from bridge.redis.ledger.outbox import Outbox
from bridge.redis.ledger.reader import Reader
from bridge.redis.ledger.settler import Settler, ended
from bridge.tasks import end


@dataclass(frozen=True, slots=True)
class _Member:
    outbox: Outbox
    reader: Reader
    settler: Settler


class Outboxes:
    """Claimed expirations of all shards."""

    def __init__(self, clock: Clock, limits: LedgerLimits) -> None:
        self._clock = clock
        self._limits = limits
        self._members: list[_Member] = []
        """Each goes to the end when entries of it were taken."""
        self._draining = False
        self._wake = asyncio.Event()

    def add(self, outbox: Outbox) -> None:
        """One more; it is to call `wake`."""
        settler = Settler(outbox, self._limits)
        self._members.append(_Member(outbox, Reader(outbox, settler, self._clock, self._limits), settler))

    def remove(self, outbox: Outbox) -> None:
        """Its shard is gone."""
        member = next(member for member in self._members if member.outbox is outbox)
        self._members.remove(member)
        for task in [*member.reader.stop(), *member.settler.stop()]:
            task.cancel()

    async def close(self) -> None:
        """Nothing will be read any more."""
        await end([task for member in self._members for task in (*member.reader.stop(), *member.settler.stop())])

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
        return sum(member.outbox.depth for member in self._members)

    # Read.

    async def read(self, limit: int) -> Sequence[Entry]:
        """See `Outbox.read`."""
        anyway = False
        while True:
            self._wake.clear()
            anyway = anyway or self._draining
            asked = self._asked()
            if len(self._members) == 1 and not asked:  # no task, which costs more than all else here
                if entries := await self._members[0].reader.read(limit, anyway=anyway, alone=True):
                    return entries
            else:
                for member in self._members:
                    member.reader.ask(limit, anyway=anyway)
                asked = self._asked()
            while asked and not self._wake.is_set():
                await self._answered(asked)
                if entries := self._taken():
                    return entries
                asked = self._asked()
            if asked or self._wake.is_set():
                anyway = False
            elif self._draining and anyway and not any(member.reader.failed for member in self._members):
                return ()
            else:
                anyway = not await self._clock.wait(self._wake, self._limits.outbox_poll)

    def _asked(self) -> list[asyncio.Task[Sequence[Entry]]]:
        return [member.reader.asked for member in self._members if member.reader.asked is not None]

    async def _answered(self, asked: Sequence[asyncio.Task[Sequence[Entry]]]) -> None:
        """Return when one of those that were asked has answered, or there is more to ask for."""
        woken = asyncio.create_task(self._wake.wait(), name="outbox-woken")
        try:
            await self._clock.first([woken, *asked], self._limits.outbox_poll)
        finally:
            await end([woken])

    def _taken(self) -> Sequence[Entry]:
        """One answer with any entries."""
        for member in list(self._members):
            if entries := member.reader.take():
                self._members.remove(member)
                self._members.append(member)
                return entries
        return ()

    # Settle.

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """See `Outbox.settle`. What one server of several does not take is tried again with the next, or later."""
        members = {member.outbox.shard: member for member in self._members}
        concerned = dict[int, _Member]()
        for settlement in settlements:
            shard = settlement.shard
            if shard in members:  # else it has moved: the bridge that has it now reads it again
                members[shard].settler.owe(settlement)
                concerned[shard] = members[shard]
        if len(self._members) == 1:
            for member in concerned.values():
                await member.settler.settle(alone=True)
        elif concerned:
            await self._settle_several(list(concerned.values()))

    async def _settle_several(self, members: Sequence[_Member]) -> None:
        """Wait for none of them for long, unless the process is about to end."""
        tasks = [member.settler.start() for member in members]
        await self._clock.all(tasks, None if self._draining else self._limits.settle_patience)
        for task in tasks:
            ended(task)
