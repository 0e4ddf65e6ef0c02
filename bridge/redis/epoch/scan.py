"""The reconcile scan: finds keys with a deadline that the ledger does not know.

It records nothing itself: what it finds is handed to the batches (`protocol/findings.py`). Where Redis can select the
keys that are ours, the batches' scripts go through the keyspace, and keys need not travel. Otherwise the keys are
listed and selected here. There is one scan in each gap, then one every `BRIDGE_SCAN_INTERVAL` seconds.
"""

import asyncio
from collections.abc import Callable

from bridge.redis.epoch.attempt import Attempt
from bridge.redis.protocol.calls import Applied
from bridge.redis.protocol.findings import END, Findings
from bridge.redis.protocol.interpreter import Scope
from bridge.redis.protocol.own_keys import is_of_a_bridge
from bridge.redis.protocol.pace import Pace
from bridge.redis.protocol.patterns import scan_match


class Scan:
    """The scans of one epoch."""

    def __init__(self, attempt: Attempt, scope: Scope, findings: Findings, pace: Pace) -> None:
        shard = attempt.shard
        settings = shard.runtime.settings
        self.complete = not attempt.gap.open
        """Whether the keyspace was gone through since the gap opened."""
        self._ledger = attempt.ledger
        self._findings = findings
        self._pace = pace
        self._match, exact = scan_match(settings.bridged_keys(), settings.shards)
        self._matches = None if exact else scope.matches
        """Selects from what `_match` finds, if that is too much."""
        self._own_prefix = scope.names.own_prefix
        self._interval = settings.scan_interval or None
        self._limits = scope.limits
        self._clock = shard.runtime.clock
        self._telemetry = shard.telemetry
        self._wake = attempt.ears.wake
        self._room = asyncio.Event()
        self._again = asyncio.Event()
        self._through = asyncio.Event()
        self._keys = 0

    async def run(self) -> None:
        """Scan at once if a gap is open, then at every interval (0: never), and when asked to."""
        if self.complete:
            self._telemetry.scan_spared()
            await self._clock.wait(self._again, self._interval)
        while True:
            self._again.clear()
            started, self._keys = self._clock.monotonic(), 0
            self._telemetry.scan_started()
            await (self._by_batches() if self._matches is None else self._by_list(self._matches))
            self.complete = True
            self._wake.set()
            self._telemetry.scan_completed(self._keys, self._clock.monotonic() - started)
            await self._clock.wait(self._again, self._interval)

    def again(self) -> None:
        """Scan once more, after the present scan."""
        self._again.set()

    def taken(self) -> None:
        """Say that findings may have been taken into a batch."""
        if len(self._findings) < self._limits.scan_keys:
            self._room.set()

    def applied(self, applied: Applied) -> None:
        """A batch was applied. It may have scanned a part."""
        if applied.next_part:
            self._progressed(applied.found, int(applied.next_part))
            if applied.next_part == END:
                self._through.set()

    async def _by_batches(self) -> None:
        self._through.clear()
        self._findings.begin(self._match)
        self._wake.set()
        await self._through.wait()

    async def _by_list(self, matches: Callable[[bytes], object]) -> None:
        cursor, own, findings = 0, self._own_prefix, self._findings
        while True:
            cursor, keys = await self._ledger.scan(cursor, self._match, self._limits.scan_keys)
            users = [key for key in keys if not (key.startswith(own) or is_of_a_bridge(key)) and matches(key)]
            if users:
                findings.add(users)
                self._wake.set()
                if len(findings) >= self._limits.scan_keys:  # the next part is read while this one is handled
                    self._room.clear()
                    await self._room.wait()
            self._progressed(len(users), cursor)
            if not cursor:
                return
            if self._pace.rest:
                await self._clock.sleep(self._pace.rest)

    def _progressed(self, keys: int, cursor: int) -> None:
        self._keys += keys
        self._telemetry.scan_progressed(keys, _share(cursor))


def _share(cursor: int) -> float:
    """The share of the keyspace that lies behind `cursor`; 1 at the end, which is 0.

    Redis increments the cursor with its bits reversed, beginning at the highest bit of the table's size. So the bits,
    lowest first, are the digits of a binary fraction, for any size, and also while the table grows.
    """
    if not cursor:
        return 1.0
    return sum(2.0 ** -(bit + 1) for bit in range(cursor.bit_length()) if cursor >> bit & 1)
