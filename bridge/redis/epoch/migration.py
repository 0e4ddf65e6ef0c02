"""Entries of a ledger when slots of a cluster move: they follow the keys.

Mostly Redis itself does that: a key that moves is deleted here and restored there, and both are notified. Some entries
stay behind, because a notification was missed, or the key moved in another way. A walk of the ledger finds them, and
one step takes them out of the ledger and puts them into `…:moved`. The entries of a stray go there as well
(`strays.py`). From there they are placed (`placement.py`). Keys that came with a slot may not have been notified: a
scan finds them.
"""

import asyncio
from functools import partial
from typing import NoReturn

from bridge.redis.epoch.attempt import Attempt
from bridge.redis.epoch.placement import Placement
from bridge.redis.epoch.scan import Scan
from bridge.redis.epoch.shard import ClusterState
from bridge.redis.epoch.strays import Strays
from bridge.redis.protocol.interpreter import Scope
from bridge.redis.protocol.migrated_keys import MigratedKeys
from bridge.redis.protocol.walk import Walk
from bridge.redis.wire.topology import Topology
from bridge.tasks import run_together


class Migration:
    """That of one epoch."""

    def __init__(
        self, attempt: Attempt, topology: Topology, scope: Scope, migrated: MigratedKeys, *, scan: Scan, walk: Walk
    ) -> None:
        shard = attempt.shard
        self.strays = Strays(attempt, migrated)
        self.placement = Placement(attempt, topology, scope, migrated, self.look)
        self._topology = topology
        self._number = shard.number
        self._redis_clock = shard.redis_clock
        self._clock = shard.runtime.clock
        self._pause = shard.runtime.limits.epoch.stray_search
        self._migrated = migrated
        self.searches = [scan.again]
        """Functions that start a search for keys that came with a slot."""
        self._walk = walk
        self._wake = attempt.ears.wake
        self._here = self._slots()
        """The slots that were here at the last look."""
        self._came = asyncio.Event()
        self._went = asyncio.Event()
        self._moved = False

    @property
    def settled(self) -> bool:
        """Whether nothing known is still to be adopted."""
        return self.strays.settled and not self._migrated.arrivals

    def moving(self) -> bool:
        """Whether slots are on their way, or came or went since the last call."""
        moved, self._moved = self._moved, False
        return moved or self._topology.busy

    def adopted(self, number: int, left: int | str) -> None:
        """A part of another ledger was adopted: see `Ledger.adopt`."""
        if self.strays.adopted(number, left):
            self.placement.want()

    async def run(self) -> None:
        """Find strays, place entries, and follow the slots, until cancelled."""
        await run_together(
            {
                "find-strays": self.strays.run(),
                "place-entries": self.placement.run(),
                "watch-slots": self._watch_slots(),
                "search-slots-that-came": self._search_what_came(),
                "walk-after-slots-went": self._walk_after_what_went(),
            }
        )

    async def _watch_slots(self) -> NoReturn:
        while True:
            news = self._topology.news
            self.look()
            await news.wait()

    def look(self) -> None:
        """Learn which slots came and went since the last look."""
        now = self._slots()
        if now is self._here:
            return
        came, went, self._here = now - self._here, self._here - now, now
        self._moved = self._moved or bool(came or went)
        if came:
            self._migrated.came(came, int(self._redis_clock.now_ms()))
            self._came.set()
        if went:
            self._migrated.went(went)
            self._went.set()

    async def _search_what_came(self) -> NoReturn:
        while True:
            await self._came.wait()
            self._came.clear()
            for again in self.searches:
                again()
            self.strays.search()
            await self._clock.sleep(self._pause)

    async def _walk_after_what_went(self) -> NoReturn:
        while True:
            await self._went.wait()
            self._went.clear()
            self._walk.repeat()
            self._wake.set()
            await self._clock.sleep(self._pause)

    def _slots(self) -> frozenset[int]:
        node = self._topology.primaries.get(self._number)
        return frozenset() if node is None else node.slots


def migrated_keys(attempt: Attempt, cluster: ClusterState) -> MigratedKeys:
    """What an epoch remembers of keys of moving slots."""
    shard = attempt.shard
    away = partial(cluster.topology.away, shard.number)
    # What former epochs heard is not known here, even if this one goes on with their stream. Redis has noted it.
    since_ms = attempt.gap.start_ms or int(shard.redis_clock.now_ms())
    return MigratedKeys(away, cluster.claims, shard.runtime.limits.epoch, attempt.gap, since_ms)
