"""The outboxes of all shards as delivery sees them: the Outbox of `bridge/contracts.py`.

Guarantees: those of `outbox.py` for each. None of them waits for another, whose server may be frozen: all are asked in
parallel (`reader.py`), and settlements that a server does not accept are kept and tried again (`settler.py`).
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
        """Each moves to the end when its entries were taken."""
        self._draining = False
        self._wake = asyncio.Event()
        """There may be more to read, or the outboxes are to be looked at unasked."""
        self._heard = asyncio.Event()
        """The same, or an answer has come."""
        self._unasked = False
        """Whether they are to be looked at unasked."""
        self._timer: asyncio.TimerHandle | None = None
        """When that is next."""

    def add(self, outbox: Outbox) -> None:
        """Add an outbox. It has to call `wake`."""
        settler = Settler(outbox, self._limits)
        reader = Reader(outbox, settler, self._clock, self._limits, self._heard.set)
        self._members.append(_Member(outbox, reader, settler))

    def remove(self, outbox: Outbox) -> None:
        """Its shard is gone."""
        member = next(member for member in self._members if member.outbox is outbox)
        self._members.remove(member)
        for task in [*member.reader.stop(), *member.settler.stop()]:
            task.cancel()

    async def close(self) -> None:
        """Nothing will be read any more."""
        if self._timer is not None:
            self._timer.cancel()
        await end([task for member in self._members for task in (*member.reader.stop(), *member.settler.stop())])

    def wake(self) -> None:
        """There may be more to read."""
        self._wake.set()
        self._heard.set()

    def drain(self) -> None:
        """Nothing more will be added: when everything is read, `read` returns nothing, instead of waiting."""
        self._draining = True
        self.wake()

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
            if entries := self._taken():  # an outbox whose answer was not taken is not asked again
                return entries
            anyway = anyway or self._draining
            if entries := await self._ask(limit, anyway=anyway):
                return entries
            if self._asked or self._wake.is_set():
                anyway = False
            elif self._draining and anyway and not any(member.reader.failed for member in self._members):
                return ()
            else:
                anyway = await self._woken()

    async def _ask(self, limit: int, *, anyway: bool) -> Sequence[Entry]:
        """The first answer that has entries; nothing if there are none, or if there is more to ask for meanwhile."""
        if len(self._members) == 1 and not self._asked:  # no task, which costs more than all else here
            member = self._members[0]
            return await member.reader.read(limit, anyway=anyway) if anyway or member.outbox.news else ()
        for member in self._members:
            member.reader.ask(limit, anyway=anyway)
        while self._asked and not self._wake.is_set():
            self._heard.clear()
            await self._heard.wait()
            if entries := self._taken():
                return entries
        return ()

    async def _woken(self) -> bool:
        """Wait until there may be more to read. Returns whether only the time has come to look."""
        if self._timer is None:  # one for all waits, each of which is mostly short
            self._timer = self._clock.later(self._limits.outbox_poll, self._look)
        await self._wake.wait()
        unasked, self._unasked = self._unasked, False
        return unasked

    @property
    def _asked(self) -> bool:
        """Whether any outbox was asked whose answer was not taken yet."""
        return any(member.reader.asked for member in self._members)

    def _look(self) -> None:
        """Look, although there was no wake-up: one may have been lost."""
        self._timer, self._unasked = None, True
        self.wake()

    def _taken(self) -> Sequence[Entry]:
        """The first answer that has entries."""
        for member in list(self._members):
            if entries := member.reader.take():
                self._members.remove(member)
                self._members.append(member)
                return entries
        return ()

    async def again(self, shard: int, entry_id: bytes) -> Entry | None:
        """See `Outbox.again`."""
        for member in self._members:
            if member.outbox.shard == shard:
                return await member.outbox.again(entry_id)
        return None  # the bridge that has the shard now reads it

    def holds(self, shard: int) -> bool:
        """See `Outbox.holds` of the contracts."""
        return any(member.outbox.shard == shard and member.outbox.ours for member in self._members)

    # Settle.

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """See `Outbox.settle`. What one of several servers does not accept is tried again with the next, or later."""
        members = {member.outbox.shard: member for member in self._members}
        concerned = dict[int, _Member]()
        for settlement in settlements:
            shard = settlement.shard
            if shard in members:  # else the shard has moved: the bridge that has it now reads it again
                members[shard].settler.owe(settlement)
                concerned[shard] = members[shard]
        if len(self._members) == 1:
            for member in concerned.values():
                await member.settler.settle(alone=True)
        elif concerned:
            await self._settle_several(list(concerned.values()))

    async def _settle_several(self, members: Sequence[_Member]) -> None:
        """Do not wait long for any of them, unless the process is about to end."""
        tasks = [member.settler.start() for member in members]
        await self._clock.all(tasks, None if self._draining else self._limits.settle_patience)
        for task in tasks:
            ended(task)
