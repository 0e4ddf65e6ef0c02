"""The scripts of one epoch, one at a time, each with its mark. Those that change the ledger have a sequence number.

Guarantees: what was sent, and not answered, is in `in_doubt`. The ledger is never changed under an old fence.
"""

import math
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from bridge.endings import Ending
from bridge.errors import NotConnected
from bridge.redis.epoch.attempt import Attempt
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Applied, Batch, Touch, Touched
from bridge.redis.protocol.endings import EpochEnded
from bridge.redis.protocol.operations import unproven

_Reply = TypeVar("_Reply")


class Writer:
    """See the module."""

    def __init__(self, attempt: Attempt) -> None:
        self.in_doubt: Batch | None = None
        """A batch whose reply is awaited or lost: to be sent again until it is answered."""
        self.fence = attempt.lease.fence
        self._ledger = attempt.ledger
        self._names = attempt.shard.names
        self._budget = attempt.shard.budget
        """It learns which scripts were answered."""
        self._clock = attempt.shard.runtime.clock
        self.applied_at = -math.inf
        """When the last batch was answered, on the bridge's clock in seconds."""
        self.tracked: Ledger | None = None
        """The scripts, on a connection that Redis tracks. The proof of a value holds for claims that are sent on it."""
        self._seq = 0
        self._marks = 0
        self._announces = attempt.ears.present
        """Whether the next epoch may go on where this one stops."""
        self._anchors = attempt.shard.runtime.limits.backlog.anchor if attempt.ears.word else None
        """The least number of seconds between two touches that measure; None if none does."""
        self._measured_at: float | None = None

    def told(self, place: bytes) -> bytes:
        """The place that the next epoch may use: empty, once a batch could not announce what it did."""
        return place if self._announces else b""

    async def apply(
        self, operations: Sequence[bytes], gap_start_ms: int, heard: int, place: bytes, room: int, listed_ms: int | None
    ) -> tuple[bytes, Applied]:
        """Send a batch. Returns its mark, and what it did.

        `heard`: how many expirations are handled with it, in all epochs. `place`: how far the stream is. `room`,
        `listed_ms`: see `Batch`.
        """
        mark, place = self.next_mark(), self.told(place)
        if listed_ms is not None and self.tracked is None:
            operations = unproven(operations)
        batch = Batch(self.fence, self.next_seq(), gap_start_ms, heard, mark, operations, place, room, listed_ms)
        self.in_doubt = batch
        applied = await self._measured(self._send(batch))
        self.applied_at = self._clock.monotonic()
        self.in_doubt = None
        if applied is None:
            raise EpochEnded(
                Ending.LEASE_LOST, "lease lost: the ledger says that a batch was applied before it was sent"
            )
        self._announces = self._announces and applied.announced
        return batch.mark, applied

    async def _send(self, batch: Batch) -> Applied | None:
        if self.tracked is None:
            return await self._ledger.apply(batch)
        try:
            return await self.tracked.apply(batch)
        except NotConnected:
            self.tracked = None  # and with it everything that was proven
            self.in_doubt = batch._replace(operations=unproven(batch.operations))
            applied = await self._ledger.apply(self.in_doubt)
            if applied is None:
                raise  # it was applied, but the reply that said what it did is lost
            return applied

    async def touch(self, touch: Touch) -> Touched:
        """See `Ledger.touch`. While no gap is open, it may be an anchor for the next one."""
        now = self._clock.monotonic()
        measure = self._anchors is not None and not touch.gap_open
        if measure and (self._measured_at is None or now - self._measured_at >= (self._anchors or 0)):
            self._measured_at = now
            touch = touch._replace(measure=True)
        return await self._measured(self._ledger.touch(touch))

    async def adopt(self, number: int) -> int | str:
        """Adopt a part of another ledger: see `Ledger.adopt`."""
        return await self._ledger.adopt(self.fence, self.next_seq(), number)

    def next_mark(self) -> bytes:
        """The mark of the next script."""
        self._marks += 1
        return self._names.mark(self.fence, self._marks)

    async def _measured(self, script: Awaitable[_Reply]) -> _Reply:
        """Its reply. The budget learns whether there was one."""
        try:
            reply = await script
        except NotConnected:
            self._budget.failed(self._clock.monotonic())
            raise
        self._budget.worked(self._clock.monotonic())
        return reply

    def next_seq(self) -> int:
        """The sequence number of the next script that changes the ledger."""
        self._seq += 1
        return self._seq
