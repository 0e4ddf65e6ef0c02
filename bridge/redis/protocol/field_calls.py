"""The requests to `fields.lua`, and its answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.redis.protocol.fields import Hint


@dataclass(frozen=True, slots=True)
class Look:
    """Read hashes: those that were notified, then those whose first field is due."""

    fence: int
    seq: int
    mark: bytes
    gap_start_ms: int
    """0: no gap is open."""
    hints: Sequence[Hint]
    due: int
    """At most that many of the hashes that are due."""


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """How many fields may have expired, and are not announced."""

    deleted: int = 0
    """Gone and past their deadlines, while one of the hash's fields, or all, were deleted."""
    returned: int = 0
    """Present, although past their deadlines: they were set anew, or postponed, before or after they expired."""
    elsewhere: int = 0
    """Past their deadlines, in slots of a cluster that are on another node."""
    too_large: int = 0
    """In a hash that has more fields than are read."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.deleted + self.returned + self.elsewhere + self.too_large


@dataclass(frozen=True, slots=True)
class Looked:
    """What came of it."""

    now_us: int
    """Redis's clock, in microseconds."""
    depth: int
    """Expirations in the outbox."""
    lowest_ms: int | None
    """The first deadline of any field in the ledger."""
    hashes: int
    """How many are in the ledger."""
    handled: int
    """How many of the hints, from the first one on."""
    by_notification: int
    by_sweep: int
    ambiguous: Ambiguous
    waiting: Sequence[bytes]
    """Hashes that have to be read again when the mark is back."""
    unsure: Sequence[bytes]
    """Hashes with too many fields. Whether any field has a deadline is not known."""
    excluded: Sequence[bytes]
    """Hashes with too many fields: there is a dead letter for each."""
    repaired: int = 0
    """Keys of the ledger in whose place something else was: no bridge writes that, so it is gone."""
    left_out: int = 0
    """Of the hashes in the ledger, those with too many fields."""
    unfinished: Sequence[bytes] = ()
    """Hashes that have to be read again at once: not all was claimed that has expired."""
