"""The audit: how many expirations Redis has not notified.

Redis counts the keys that it expires (`expired_keys`, of all databases), and notifies each. The bridge counts the
notifications that it has handled. At a mark, both counts are of one moment: missed = Δ`expired_keys` minus Δ handled.

Guarantees: a number is right, or there is none. There is none across a restart of Redis, CONFIG RESETSTAT, a load of
its data or a counter that moves the wrong way, nor where not all databases can be listened to. Notifications that were
not handled, because the bridge died or its backlog was full, count as missed too: the ledger has to make up for both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from bridge.limits import EpochLimits


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters at one mark."""

    life: str
    """Identifies the life of Redis's counters: its run id, and how many keys its last load dropped unannounced."""
    counters: tuple[int, ...]
    """`expired_keys` without the canaries, and others that only grow: if one has shrunk, they were reset."""
    heard: int
    """Notifications of expirations handled by all epochs of this ledger."""

    @classmethod
    def of(cls, counters: Sequence[bytes | int], heard: int, void: int) -> Self | None:
        """What a touch has read; None where Redis does not report it. `void`: canaries that it took for expired."""
        try:
            run_id, dropped, expired, commands, connections, canaries = counters
            numbers = (int(expired) - int(canaries) + void, int(commands), int(connections))
        except ValueError:  # also if there is less than that
            return None
        return cls(f"{_text(run_id)}/{_text(dropped)}", numbers, heard)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The inverse of `str`; None where there was none, or it is not ours."""
        life, _, numbers = text.partition(" ")
        try:
            *counters, heard = map(int, numbers.split())
        except ValueError:
            return None
        return cls(life, tuple(counters), heard)

    def __str__(self) -> str:
        return " ".join(map(str, (self.life, *self.counters, self.heard)))


def missed(before: Reading | None, after: Reading | None) -> int | None:
    """How many expirations between two readings were not handled; None if that is unknown."""
    if before is None or after is None or before.life != after.life or len(before.counters) != len(after.counters):
        return None
    if any(later < earlier for earlier, later in zip(before.counters, after.counters, strict=True)):
        return None
    count = after.counters[0] - before.counters[0] - (after.heard - before.heard)
    return count if count >= 0 else None


def _text(counter: bytes | int) -> str:
    return counter.decode() if isinstance(counter, bytes) else str(counter)


class Trust:
    """Whether the counter can be trusted: kept from epoch to epoch."""

    def __init__(self, limits: EpochLimits) -> None:
        self._limits = limits
        self.lost = False
        self._short = 0

    def doubt(self, epoch_seconds: float) -> bool:
        """An epoch of that length ended: it missed notifications, for no visible reason. Whether trust is lost."""
        self._short = self._short + 1 if epoch_seconds < self._limits.audit_short_epoch else 0
        self.lost = self.lost or self._short >= self._limits.audit_most_short
        return self.lost


class Audit:
    """The audit of one epoch."""

    def __init__(self, stored: Reading | None, limits: EpochLimits, *, goes_on: bool = False) -> None:
        """`stored` is the last reading of a former epoch at which everything was known to be well.

        `goes_on`: nothing should have been missed since then, and the audit proves it.
        """
        self._limits = limits
        self._stored = stored
        self._first = stored if goes_on else None
        self._read_at: float | None = None
        self.last: Reading | None = None

    def due(self, now: float) -> bool:
        """Whether it is time for a reading; `now` in monotonic seconds."""
        return self._read_at is None or now - self._read_at >= self._limits.audit

    def asked(self, now: float) -> None:
        """A reading was asked for."""
        self._read_at = now

    def read(self, reading: Reading | None) -> int:
        """The mark of a reading is back. Returns how many expirations this epoch has missed, as far as is known."""
        self.last = reading
        count = missed(self._first, reading)
        if count is None:
            self._first = reading  # the first one, or the counters have begun anew
        return count or 0

    def closed(self) -> None:
        """The gap is closed: what was missed until now is accounted for."""
        self._first = self.last

    def in_gap(self) -> int | None:
        """How many were missed since the stored reading."""
        return missed(self._stored, self.last)
