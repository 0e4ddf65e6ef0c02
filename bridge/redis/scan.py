"""The reconcile scan: finds keys that carry a deadline of which the ledger does not know.

It only collects keys. They are read and recorded by the epoch's own batches, in one atomic script like every other
hint, so a scan can never overwrite what a later notification said. One scan at the start of each epoch, then every
`BRIDGE_SCAN_INTERVAL` seconds.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable

from bridge.clock import Clock
from bridge.redis.ledger import Ledger
from bridge.tasks import happens
from bridge.telemetry.shard import ShardTelemetry

SCAN_COUNT = 500
"""Keys in one SCAN call: a bound on how long it keeps Redis busy (0.2–0.3 µs a key)."""


class Scan:
    """The scans of one epoch. Keys go into `found`; who takes them from there calls `took`."""

    def __init__(  # noqa: PLR0913 - what it reads, what it leaves out, whom it wakes
        self,
        ledger: Ledger,
        found: deque[bytes],
        *,
        match: bytes | None,
        matches: Callable[[bytes], object] | None,
        own_prefix: bytes,
        interval: float,
        wake: asyncio.Event,
        clock: Clock,
        telemetry: ShardTelemetry,
    ) -> None:
        self.complete = False
        """Whether the keyspace was gone through at least once."""
        self._ledger = ledger
        self._found = found
        self._match = match
        self._matches = matches
        self._own_prefix = own_prefix
        self._interval = interval
        self._wake = wake
        self._room = asyncio.Event()
        self._again = asyncio.Event()
        self._clock = clock
        self._telemetry = telemetry

    async def run(self) -> None:
        """Scan at once, then at every interval (0: never), and when asked to."""
        while True:
            self._again.clear()
            started = self._clock.monotonic()
            self._telemetry.scan_started()
            keys = await self._once()
            self.complete = True
            self._wake.set()
            self._telemetry.scan_completed(keys, self._clock.monotonic() - started)
            await happens(self._again, self._interval or math.inf)

    def again(self) -> None:
        """Scan once more, when the one that is under way is done."""
        self._again.set()

    def took(self) -> None:
        """Keys may have been taken out of `found`."""
        if len(self._found) < SCAN_COUNT:
            self._room.set()

    async def _once(self) -> int:
        cursor, count = 0, 0
        own, matches = self._own_prefix, self._matches
        while True:
            cursor, keys = await self._ledger.scan(cursor, self._match, SCAN_COUNT)
            users = [key for key in keys if not key.startswith(own) and (matches is None or matches(key))]
            if users:
                count += len(users)
                self._found.extend(users)
                self._wake.set()
                if len(self._found) >= SCAN_COUNT:  # the next part is read while this one is handled
                    self._room.clear()
                    await self._room.wait()
            self._telemetry.scan_progressed(len(users), _share(cursor))
            if not cursor:
                return count


def _share(cursor: int) -> float:
    """The share of the keyspace that lies behind `cursor`; 1 at the end, which is 0.

    Redis counts its cursor up from the highest bit of the table's size downwards. So the bits, the lowest first, are
    the digits of a binary fraction: whatever the size is, and also while the table grows.
    """
    if not cursor:
        return 1.0
    return sum(2.0 ** -(bit + 1) for bit in range(cursor.bit_length()) if cursor >> bit & 1)
