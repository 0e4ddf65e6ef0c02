"""Strays: ledgers on this node of a cluster that no longer belong to a primary (`slots.py`).

A ledger becomes a stray when the slot of its name moves, or when a slot arrives whose ledger has a smaller number. A
stray is found by the `restore` that notifies its arrival, or by a search for the bridge's own keys. The search runs
when the epoch begins, when slots have arrived (Valkey's atomic migration notifies nothing), and every
`BRIDGE_SCAN_INTERVAL`, because another bridge may have sent entries to a ledger that was just adopted. The epoch's own
task adopts the stray, part by part (`adopt.lua`).
"""

import asyncio

from bridge.redis.epoch.attempt import Attempt
from bridge.redis.protocol.migrated_keys import MigratedKeys


class Strays:
    """The strays that one epoch knows."""

    def __init__(self, attempt: Attempt, migrated: MigratedKeys) -> None:
        shard = attempt.shard
        self._names = shard.names
        self._clock = shard.runtime.clock
        self._limits = shard.runtime.limits.epoch
        self._interval = shard.runtime.settings.scan_interval or None
        self._telemetry = shard.telemetry
        self._ledger = attempt.ledger
        self._known = migrated.strays
        self._wake = attempt.ears.wake
        self._searched = False
        """Whether every stray that was here when the epoch began is known."""
        self._wanted = asyncio.Event()
        self._not_before: dict[int, float] = {}
        """When the strays that another bridge works on may be tried again."""

    @property
    def settled(self) -> bool:
        """Whether no known stray is still to be adopted."""
        return self._searched and not self._known

    def next(self) -> int | None:
        """The number of a stray of which a part can be adopted now; None if there is none."""
        now = self._clock.monotonic()
        return next((number for number in self._known if self._not_before.get(number, now) <= now), None)

    def adopted(self, number: int, left: int | str) -> bool:
        """`left`: see `Ledger.adopt`. Returns whether this may have brought entries to place."""
        if left == "held":
            self._not_before[number] = self._clock.monotonic() + self._limits.migration_pause
            return False
        if left in {0, "elsewhere"}:
            self._known.discard(number)
            self._telemetry.ledger_adopted(number, complete=not left)
        return True

    def search(self) -> None:
        """Search again soon: slots have come."""
        self._wanted.set()

    async def run(self) -> None:
        """Search now, when asked to, and at every interval (0: never)."""
        while True:
            self._wanted.clear()
            await self._search()
            self._searched = True
            self._wake.set()
            await self._clock.sleep(self._limits.stray_search)
            await self._clock.wait(self._wanted, self._interval)

    async def _search(self) -> None:
        cursor = 0
        while True:
            cursor, keys = await self._ledger.scan(cursor, self._names.own_pattern, self._limits.stray_keys)
            for key in keys:
                number = self._names.shard_of(key)
                if number is not None and number != self._names.shard:
                    self._known.add(number)
                    self._wake.set()
            if not cursor:
                return
