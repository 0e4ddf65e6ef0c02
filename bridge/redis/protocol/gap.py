"""A gap: a time span in which notifications may have been missed, and what is known of it.

An epoch that did not inherit the stream opens with one. It is closed when the ledger was walked (`walk.py`), all
entries that were overdue at its start are resolved, the keyspace was scanned, a canary has proved that notifications
come, and a mark after all that is back. Until then it grows: a server that stays mute makes one single gap.
"""

from dataclasses import dataclass

from bridge.redis.protocol.calls import Applied


@dataclass(slots=True)
class Gap:
    """The gap that an epoch opened with."""

    cause: str
    opened_ms: int
    """Up to this time the former epoch is known to have handled everything."""
    start_ms: int
    """When the subscription was confirmed. An entry with an earlier deadline passed it in the gap, or before.
    0 once the gap is closed.
    """
    recovered: int = 0
    """Expirations with a deadline within the gap that were claimed although their notification was missed."""
    ambiguous: int = 0
    """Entries that were overdue at the start, and found refreshed, persisted, deleted or expired again; and entries
    whose key was gone before its deadline.
    """

    @property
    def open(self) -> bool:
        """Whether it is not reconciled yet."""
        return self.start_ms > 0

    def clock_is_at(self, redis_ms: int) -> None:
        """Learn Redis's clock. If it was set back, some deadlines are no longer past, and no longer in the gap."""
        self.start_ms = min(self.start_ms, redis_ms)

    def applied(self, batch: Applied) -> None:
        """Take over Redis's counts, as a batch left them."""
        if self.open:
            self.recovered, self.ambiguous = batch.recovered, batch.ambiguous

    def close(self) -> None:
        """It is reconciled."""
        self.start_ms = 0
