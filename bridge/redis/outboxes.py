"""The outboxes of all shards as delivery sees them: the Source of `bridge/contracts.py`.

Guarantees what `outbox.py` does of each; and that none of them waits for another: they are asked in turn.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from bridge.contracts import Entry, Settlement
from bridge.redis.outbox import Outbox
from bridge.tasks import happens

POLL_INTERVAL = 1.0
"""Seconds after which the outboxes are looked at unasked, should a wake-up ever be missing."""


class Outboxes:
    """Claimed expirations of all shards."""

    def __init__(self) -> None:
        self._outboxes: list[Outbox] = []
        self._draining = False
        self._wake = asyncio.Event()

    def add(self, outbox: Outbox) -> None:
        """One more; it is to call `wake`."""
        self._outboxes.append(outbox)

    def remove(self, outbox: Outbox) -> None:
        """It is of a shard that is no more."""
        self._outboxes.remove(outbox)

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
        """See `Source.read`."""
        asked = False
        while True:
            self._wake.clear()
            asked = asked or self._draining
            for outbox in list(self._outboxes):
                self._outboxes.remove(outbox)  # to the end of the row, whatever comes of it
                self._outboxes.append(outbox)
                if entries := await outbox.next(limit, asked=asked):
                    return entries
            if self._draining and asked:
                return ()
            asked = not await happens(self._wake, POLL_INTERVAL)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """See `Source.settle`."""
        by_shard = defaultdict[int, list[Settlement]](list)
        for settlement in settlements:
            by_shard[settlement.entry.shard].append(settlement)
        for outbox in list(self._outboxes):
            if found := by_shard.get(outbox.shard):
                await outbox.settle(found)
