"""Entries that wait beside the ledger, in `…:moved`, until they are where their keys are.

Entries of keys that are here go into the ledger (`m` in `apply.lua`). All others go to the `…:moved` of the node that
has the key: they are first added there, then removed here. So no entry is ever lost. One may be in two places for a
moment, and then be claimed twice, with the same id.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress

from bridge.errors import NotConnected, Refused
from bridge.redis.epoch.attempt import Attempt
from bridge.redis.protocol.interpreter import Scope
from bridge.redis.protocol.migrated_keys import MigratedKeys
from bridge.redis.wire.topology import Topology

Waiting = tuple[bytes, int]
"""An entry: key and deadline."""


class Placement:
    """That of one epoch. The epoch's own task takes what is put into `MigratedKeys.arrivals`."""

    def __init__(
        self, attempt: Attempt, topology: Topology, scope: Scope, migrated: MigratedKeys, look: Callable[[], None]
    ) -> None:
        """`look` learns which slots came and went. That must be known before their entries are placed."""
        shard = attempt.shard
        self._topology = topology
        self._ledger = attempt.ledger
        self._matches = scope.matches
        self._migrated = migrated
        self._number = shard.number
        self._redis_clock = shard.redis_clock
        self._clock = shard.runtime.clock
        self._limits = shard.runtime.limits.epoch
        self._telemetry = shard.telemetry
        self._wake = attempt.ears.wake
        self._look = look
        self._wanted = asyncio.Event()
        self._taken = asyncio.Event()

    def want(self) -> None:
        """Say that there may be entries to place."""
        self._wanted.set()

    def taken(self) -> None:
        """Say that arrivals may have been taken into a batch, which was applied."""
        if not self._migrated.arrivals:
            self._taken.set()

    async def run(self) -> None:
        """Place entries, whenever there may be any."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            with suppress(NotConnected):  # for example, the cluster is down; what is not placed stays where it is
                await self.go_through()
            await self._clock.sleep(self._limits.migration_pause)

    async def go_through(self) -> None:
        """Try to place all entries, once."""
        start, before = 0, None
        self._migrated.begin_pass(int(self._redis_clock.now_ms()))
        unreached: set[int] = set()
        while page := await self._ledger.moved(start, self._limits.placed):
            if page == before:  # none of it could be placed
                start += len(page)
            else:
                await self._place(page, unreached)
            before = page

    async def _place(self, page: Sequence[Waiting], unreached: set[int]) -> None:
        self._look()
        unwanted, by_ledger = self._sorted(page)
        done = list(unwanted)
        here = by_ledger.pop(self._number, [])
        for number in unreached:
            by_ledger.pop(number, None)
        for number, entries in by_ledger.items():
            try:
                await self._topology.hand_over(number, entries)
            except (NotConnected, Refused) as error:
                unreached.add(number)
                self._telemetry.entries_stranded(len(entries), str(error))
            else:
                done += (key for key, _ in entries)
        if done:
            await self._ledger.placed(done)
            self._telemetry.entries_forgotten(len(unwanted))
        if here:
            self._taken.clear()
            self._migrated.arrivals.extend(here)
            self._wake.set()
            await self._taken.wait()

    def _sorted(self, page: Sequence[Waiting]) -> tuple[list[bytes], dict[int, list[Waiting]]]:
        """The keys that are not bridged, and all other entries, by the number of their ledger.

        Entries whose slots are on their way, or came just now, are left out: until the slots have settled, what became
        of the keys is unknown.
        """
        unwanted: list[bytes] = []
        by_ledger = defaultdict[int, list[Waiting]](list)
        for entry in page:
            key, _ = entry
            number = self._topology.number_of(key)
            if self._matches is not None and not self._matches(key):
                unwanted.append(key)
            elif number is not None and not self._topology.moving(key) and not self._migrated.new(key):
                by_ledger[number].append(entry)
        return unwanted, by_ledger
