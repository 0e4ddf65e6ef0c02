"""Strays: ledgers on this node of a cluster that are those of no primary any longer (`slots.py`).

The slot of a ledger's name came here, or went, or a slot whose ledger goes before came. A stray is found by the
`restore` that shows its coming, or by a search for the bridge's own keys: when the epoch begins, when slots have come
(Valkey's atomic migration notifies nothing), and every `BRIDGE_SCAN_INTERVAL`, since another bridge may have sent
entries to a ledger that was just adopted. The epoch's own task adopts it, part by part (`adopt.lua`).
"""

import asyncio

from bridge.redis.epoch.attempt import Attempt
from bridge.redis.protocol.migrated_keys import MigratedKeys


class Strays:
    """Those that one epoch knows of."""

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
        """Whether all are known that were here when the epoch began."""
        self._wanted = asyncio.Event()
        self._not_before: dict[int, float] = {}
        """When those may be tried again that another bridge works on."""

    @property
    def settled(self) -> bool:
        """Whether nothing is known that is to be adopted."""
        return self._searched and not self._known

    def next(self) -> int | None:
        """The number of one of which a part is to be adopted now."""
        now = self._clock.monotonic()
        return next((number for number in self._known if self._not_before.get(number, now) <= now), None)

    def adopted(self, number: int, left: int | str) -> bool:
        """See `Ledger.adopt` for what is left of it. Whether it may have brought entries that are to be placed."""
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
