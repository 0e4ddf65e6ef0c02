"""What is published: expirations and gaps. Each has one id, no matter which path and process it comes from."""

from collections.abc import Sequence
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple, TypeGuard

ID_BYTES = 16
GAP_KEY, CHECK_KEY = b"_gap", b"_check"
"""Stand in place of the key if there is none: in a gap record, in a test message of `expiry-bridge check`."""


class Via(StrEnum):
    """How the bridge learned that the key expired."""

    NOTIFICATION = "notification"
    SWEEP = "sweep"


class Value(NamedTuple):
    """The value of a key that expired, or why there is none."""

    kind: str = ""
    """Redis's name for its type; empty if that is not known."""
    captured_ms: int = 0
    """When it was read."""
    exact: bool = False
    """Whether it is proven to be the last value of that life of the key."""
    content: bytes | Sequence[bytes] | None = None
    """Of a string, or a JSON document, its bytes. Of a collection its elements: of a hash field, value, field, …; of a
    sorted set member, score, member, …"""
    missing: str = ""
    """Why there is none: one of `MISSING`."""
    size: int = 0
    """Its size in bytes; for a collection, with 16 more for each element. A lower bound if it is too large."""


NOT_CAPTURED = "not_captured"
"""It was not read in time, or not under the deadline at which the key expired."""
MISSING = (NOT_CAPTURED, "too_large", "unsupported_type", "not_permitted", "outbox_full")


class Expiration(NamedTuple):
    """A claimed expiration of one key: an occurrence. Times are Unix milliseconds on Redis's clock.

    A tuple, because there is one for every message: it takes a fifth of the time that a frozen dataclass takes.
    """

    id: str
    key: bytes
    deadline_ms: int | None
    """The last recorded deadline; None if the key expired before it could be recorded."""
    observed_ms: int
    """When it was claimed."""
    via: Via
    value: Value | None = None
    """None if it is not wanted."""


class FieldExpiration(NamedTuple):
    """A claimed expiration of one field of a hash. Times as above."""

    id: str
    key: bytes
    """The hash."""
    field: bytes
    deadline_ms: int
    """The last recorded one."""
    observed_ms: int
    """When it was claimed."""
    via: Via
    """NOTIFICATION: the server notified the hash, or still held the field past its deadline. SWEEP: the field was gone,
    past its deadline, and its end was not heard.
    """


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
    """Expirations of the node, in all databases, minus their handled notifications; None if unknown."""
    recovered: int
    """Expirations with a deadline within the gap that were claimed anyway."""
    ambiguous: int
    """Entries of the ledger that may have expired in the gap: that can no longer be found out."""
    key: bytes = GAP_KEY
    filled: int | None = None
    """Expirations within the gap that were taken from the replication backlog; None if it was not filled."""
    excess: int | None = None
    """How many of these are deletions; which ones is not known. None if it was not filled."""


Event = Expiration | FieldExpiration | GapRecord


def expires(event: Event) -> TypeGuard[Expiration | FieldExpiration]:
    """Whether it is an expiration, of a key or of a field."""
    return isinstance(event, Expiration | FieldExpiration)


class Identity:
    """Makes the ids of one source and database.

    id = BLAKE2b-128, in hex, of source, db, key and either the deadline (`d`) or, where that is unknown, the outbox
    entry and the index in it (`u`); for a field, of source, db, key, field and the deadline (`f`); for a gap, of
    source, db, node, the outbox entry and, but for the first, its shard (`g`). Every part is preceded by its length, so
    that no two lists of parts collide. A (key, deadline) pair, or (key, field, deadline), is claimed at most once (the
    ledger protocol), hence one occurrence has one id.
    """

    def __init__(self, source: str, db: int) -> None:
        self._seed = blake2b(_parts(source.encode(), b"%d" % db), digest_size=ID_BYTES)
        self._deadline_ms, self._deadline_parts = 0, _parts(b"d", b"0")
        """The last deadline: keys often expire in runs of one."""

    def of_deadline(self, key: bytes, deadline_ms: int) -> str:
        """The id of the expiration of `key` at its recorded deadline."""
        if deadline_ms != self._deadline_ms:
            self._deadline_ms, self._deadline_parts = deadline_ms, _parts(b"d", b"%d" % deadline_ms)
        digest = self._seed.copy()
        digest.update(b"%d:%b,%b" % (len(key), key, self._deadline_parts))  # as `_parts`, in one go
        return digest.hexdigest()

    def of_entry(self, key: bytes, entry_id: bytes, index: int) -> str:
        """The id of an expiration without a known deadline: its place in the outbox is unique."""
        return self._digest(key, b"u", entry_id, b"%d" % index)

    def of_field(self, key: bytes, field: bytes, deadline_ms: int) -> str:
        """The id of the expiration of a field at its recorded deadline."""
        return self._digest(key, field, b"f", b"%d" % deadline_ms)

    def of_gap(self, node: str, entry_id: bytes, shard: int = 0) -> str:
        """The id of the gap record that an outbox entry holds: an id of one shard's may be that of another's."""
        return self._digest(node.encode(), b"g", entry_id, *([b"%d" % shard] if shard else []))

    def _digest(self, *parts: bytes) -> str:
        digest = self._seed.copy()
        digest.update(_parts(*parts))
        return digest.hexdigest()


def _parts(*parts: bytes) -> bytes:
    return b"".join(b"%d:%b," % (len(part), part) for part in parts)
