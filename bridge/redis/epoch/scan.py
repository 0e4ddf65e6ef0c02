"""The reconcile scan: finds keys that carry a deadline of which the ledger does not know.

It records none itself. Keys are read and recorded by the epoch's own batches, in one atomic script like every other
hint, so a scan can never overwrite what a later notification said. Where Redis can tell which keys are ours, these
scripts go through the keyspace themselves, and keys need not travel; else they are listed here, and picked out. One
scan at the start of each epoch, then every `BRIDGE_SCAN_INTERVAL` seconds.
"""

import asyncio
import math
from collections.abc import Callable

from bridge.clock import Clock
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Applied
from bridge.redis.protocol.hints import Hints
from bridge.tasks import happens
from bridge.telemetry.shard import ShardTelemetry

SCAN_COUNT = 500
"""Keys in one SCAN call: a bound on how long it keeps Redis busy (0.2–0.3 µs a key)."""


class Scan:
    """The scans of one epoch. Whoever makes batches of `hints` calls `took` and `applied`."""

    def __init__(  # noqa: PLR0913 - what it reads, what it leaves out, whom it wakes
        self,
        ledger: Ledger,
        hints: Hints,
        *,
        match: bytes,
        matches: Callable[[bytes], object] | None,
        own_prefix: bytes,
        interval: float,
        wake: asyncio.Event,
        clock: Clock,
        telemetry: ShardTelemetry,
    ) -> None:
        """`match` is Redis's; `matches` picks from what that finds, if it finds too much."""
        self.complete = False
        """Whether the keyspace was gone through at least once."""
        self._ledger = ledger
        self._hints = hints
        self._match = match
        self._matches = matches
        self._own_prefix = own_prefix
        self._interval = interval
        self._wake = wake
        self._room = asyncio.Event()
        self._again = asyncio.Event()
        self._through = asyncio.Event()
        self._keys = 0
        self._clock = clock
        self._telemetry = telemetry

    async def run(self) -> None:
        """Scan at once, then at every interval (0: never), and when asked to."""
        while True:
            self._again.clear()
            started, self._keys = self._clock.monotonic(), 0
            self._telemetry.scan_started()
            await (self._by_batches() if self._matches is None else self._by_list(self._matches))
            self.complete = True
            self._wake.set()
            self._telemetry.scan_completed(self._keys, self._clock.monotonic() - started)
            await happens(self._again, self._interval or math.inf)

    def again(self) -> None:
        """Scan once more, when the one that is under way is done."""
        self._again.set()

    def took(self) -> None:
        """Keys may have been taken out of `hints.found`."""
        if len(self._hints.found) < SCAN_COUNT:
            self._room.set()

    def applied(self, applied: Applied) -> None:
        """A batch was applied, which may have scanned a part."""
        if applied.next_part:
            self._progressed(applied.found, int(applied.next_part))
            if self._hints.part is None:
                self._through.set()

    async def _by_batches(self) -> None:
        self._through.clear()
        self._hints.scan(self._match)
        self._wake.set()
        await self._through.wait()

    async def _by_list(self, matches: Callable[[bytes], object]) -> None:
        cursor, own, found = 0, self._own_prefix, self._hints.found
        while True:
            cursor, keys = await self._ledger.scan(cursor, self._match, SCAN_COUNT)
            users = [key for key in keys if not key.startswith(own) and matches(key)]
            if users:
                found.extend(users)
                self._wake.set()
                if len(found) >= SCAN_COUNT:  # the next part is read while this one is handled
                    self._room.clear()
                    await self._room.wait()
            self._progressed(len(users), cursor)
            if not cursor:
                return

    def _progressed(self, keys: int, cursor: int) -> None:
        self._keys += keys
        self._telemetry.scan_progressed(keys, _share(cursor))


def _share(cursor: int) -> float:
    """The share of the keyspace that lies behind `cursor`; 1 at the end, which is 0.

    Redis counts its cursor up from the highest bit of the table's size downwards. So the bits, the lowest first, are
    the digits of a binary fraction: whatever the size is, and also while the table grows.
    """
    if not cursor:
        return 1.0
    return sum(2.0 ** -(bit + 1) for bit in range(cursor.bit_length()) if cursor >> bit & 1)
