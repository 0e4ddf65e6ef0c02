"""How much to send and to ask for at once, where only trying shows what fits.

A link may be slow, and a server may close connections whose query or reply is larger than it allows. So what failed is
tried again with half as much, and much later with more. Pure: no I/O, no clock.
"""

from bridge.limits import EpochLimits


class Budget:
    """How many bytes of keys one script may take, and reply with. Kept from epoch to epoch."""

    def __init__(self, limits: EpochLimits) -> None:
        self.bytes = limits.batch_bytes
        self._limits = limits
        self._patience = limits.batch_recovery
        self._grow_at: float | None = None

    def failed(self, now: float) -> None:
        """A script has got no reply, at `now` in monotonic seconds: perhaps it was too much."""
        again = self._grow_at is not None
        self.bytes = max(self.bytes // 2, self._limits.least_batch_bytes)
        # Each attempt with more may end an epoch. So after a failed attempt the next one comes later.
        self._patience = min(2 * self._patience, self._limits.batch_patience) if again else self._limits.batch_recovery
        self._grow_at = now + self._patience

    def worked(self, now: float) -> None:
        """A script was answered."""
        if self._grow_at is None or now < self._grow_at:
            return
        if self.bytes < self._limits.batch_bytes:
            self.bytes = min(2 * self.bytes, self._limits.batch_bytes)
            self._grow_at = now + self._patience
        else:
            self._grow_at = None  # as large as can be, for long enough


class Portion:
    """How many items of unknown size to ask for at once, so that the reply has about `most_bytes`."""

    def __init__(self, most_bytes: int, first: int) -> None:
        """`first`: how many to ask for while no size is known."""
        self._most_bytes = most_bytes
        self._each = most_bytes / first

    def of(self, most: int) -> int:
        """How many to ask for: at least one, at most `most`."""
        return max(min(most, int(self._most_bytes / self._each)), 1)

    def took(self, count: int, size: int) -> None:
        """`count` items came, `size` bytes together. The next ones may be larger, so it at most doubles."""
        if count:
            self._each = max(size / count, self._each / 2, 1.0)

    def failed(self) -> None:
        """No reply came: perhaps it was too large."""
        self._each = min(self._each * 2, self._most_bytes)
