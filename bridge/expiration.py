"""One expiration, and the id that it keeps from whichever path and process it comes."""

from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

ID_BYTES = 16


class Via(StrEnum):
    """How the bridge learned that the key expired."""

    NOTIFICATION = "notification"
    SWEEP = "sweep"


@dataclass(frozen=True, slots=True)
class Expiration:
    """A claimed expiration of one key: an occurrence. Times are Unix milliseconds on Redis's clock."""

    id: str
    key: bytes
    deadline_ms: int | None
    """The last recorded deadline; None where the key expired before it could be recorded."""
    observed_ms: int
    """When it was claimed."""
    via: Via


class Identity:
    """Makes the ids of one source and database.

    id = BLAKE2b-128, in hex, of source, db, key and either the deadline (`d`) or, where that is unknown, the outbox
    entry and the index in it (`u`). Every part is preceded by its length, so that no two lists of parts collide.
    A (key, deadline) pair is claimed at most once (the ledger protocol), hence one occurrence has one id.
    """

    def __init__(self, source: str, db: int) -> None:
        self._seed = blake2b(_parts(source.encode(), b"%d" % db), digest_size=ID_BYTES)

    def of_deadline(self, key: bytes, deadline_ms: int) -> str:
        """The id of the expiration of `key` at its recorded deadline."""
        return self._digest(key, b"d", b"%d" % deadline_ms)

    def of_entry(self, key: bytes, entry_id: bytes, index: int) -> str:
        """The id of an expiration without a known deadline: its place in the outbox is unique."""
        return self._digest(key, b"u", entry_id, b"%d" % index)

    def _digest(self, *parts: bytes) -> str:
        digest = self._seed.copy()
        digest.update(_parts(*parts))
        return digest.hexdigest()


def _parts(*parts: bytes) -> bytes:
    return b"".join(b"%d:%b," % (len(part), part) for part in parts)
