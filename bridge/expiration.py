"""What the broker is told of: expirations and gaps. Each has one id, from whichever path and process it comes."""

from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple

ID_BYTES = 16
GAP_KEY, CHECK_KEY = b"_gap", b"_check"
"""What stands for the key where there is none: in a gap record, in a test message of `expiry-bridge check`."""


class Via(StrEnum):
    """How the bridge learned that the key expired."""

    NOTIFICATION = "notification"
    SWEEP = "sweep"


class Expiration(NamedTuple):
    """A claimed expiration of one key: an occurrence. Times are Unix milliseconds on Redis's clock.

    A tuple, because there is one for every message: it takes a fifth of the time that a frozen dataclass takes.
    """

    id: str
    key: bytes
    deadline_ms: int | None
    """The last recorded deadline; None where the key expired before it could be recorded."""
    observed_ms: int
    """When it was claimed."""
    via: Via


class GapRecord(NamedTuple):
    """A time span, on one node, in which notifications may have been missed. Times as above."""

    id: str
    node: str
    opened_ms: int
    """Up to here everything is known to have been handled."""
    closed_ms: int
    """From here on it is again."""
    cause: str
    missed: int | None
    """Expirations of the node, in all databases, less the notifications of them that were handled; None if unknown."""
    recovered: int
    """Expirations with a deadline within the gap, claimed all the same."""
    ambiguous: int
    """Entries of the ledger that may have expired in the gap: nobody can tell any more."""
    key: bytes = GAP_KEY
    filled: int | None = None
    """Expirations within the gap that were taken from the replication backlog; None where it was not filled."""
    excess: int | None = None
    """How many of these are deletions: nobody can tell which ones. None likewise."""


Event = Expiration | GapRecord


class Identity:
    """Makes the ids of one source and database.

    id = BLAKE2b-128, in hex, of source, db, key and either the deadline (`d`) or, where that is unknown, the outbox
    entry and the index in it (`u`); for a gap, of source, db, node, the outbox entry and, but for the first, its shard
    (`g`). Every part is preceded by its length, so that no two lists of parts collide.
    A (key, deadline) pair is claimed at most once (the ledger protocol), hence one occurrence has one id.
    """

    def __init__(self, source: str, db: int) -> None:
        self._seed = blake2b(_parts(source.encode(), b"%d" % db), digest_size=ID_BYTES)

    def of_deadline(self, key: bytes, deadline_ms: int) -> str:
        """The id of the expiration of `key` at its recorded deadline."""
        deadline = b"%d" % deadline_ms
        digest = self._seed.copy()
        digest.update(b"%d:%b,1:d,%d:%b," % (len(key), key, len(deadline), deadline))  # as `_parts`, in one go
        return digest.hexdigest()

    def of_entry(self, key: bytes, entry_id: bytes, index: int) -> str:
        """The id of an expiration without a known deadline: its place in the outbox is unique."""
        return self._digest(key, b"u", entry_id, b"%d" % index)

    def of_gap(self, node: str, entry_id: bytes, shard: int = 0) -> str:
        """The id of the gap record that an outbox entry holds: an id of one shard's may be that of another's."""
        return self._digest(node.encode(), b"g", entry_id, *([b"%d" % shard] if shard else []))

    def _digest(self, *parts: bytes) -> str:
        digest = self._seed.copy()
        digest.update(_parts(*parts))
        return digest.hexdigest()


def _parts(*parts: bytes) -> bytes:
    return b"".join(b"%d:%b," % (len(part), part) for part in parts)
