"""The operations of one batch, as `apply.lua` reads them: one constructor each.

Their names on the wire are single letters. They are only here, and in the header of `apply.lua`, which says what each
does. An operation is a tuple of words; its name alone decides how many. A batch is the words of all its operations, one
after the other, in the order of the stream. `scan` and `appeared` come last.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Operation = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ClosedGap:
    """The record of a reconciled gap, without the counts: Redis keeps those."""

    node: str
    opened_ms: int
    closed_ms: int
    """Also stored as `seen_ms`: up to here everything is handled."""
    cause: str
    missed: int | None
    """From the audit; None: unknown."""
    reading: str = ""
    """The audit's reading at `closed_ms`, stored with it; empty where there is none."""


def expired(key: bytes) -> Operation:
    """The key's `expired` was notified."""
    return b"x", key


def proven(key: bytes, deadline_ms: int) -> Operation:
    """The value held with that deadline is the last one of that life of the key. Stands before `expired`."""
    return b"e", key, b"%d" % deadline_ms


def expired_ahead(key: bytes) -> Operation:
    """The key's `expired` was notified, and was older than the entry that a batch wrote."""
    return b"X", key


def gone(key: bytes) -> Operation:
    """The key was deleted, evicted, renamed or moved away. Must not be sent while the key is ahead."""
    return b"d", key


def gone_elsewhere(key: bytes) -> Operation:
    """The same, where it may have happened on the node that the key's slot comes from."""
    return b"D", key


def resolve(key: bytes, score: bytes, state: bytes, due: bytes) -> Operation:
    """The mark of the touch that saw this is back (`calls.Touched.sights`). Must not be sent while the key is ahead."""
    return b"r", key, score, state, due


def forget(key: bytes) -> Operation:
    """`BRIDGE_KEYS` no longer matches the key."""
    return b"f", key


def appeared(key: bytes) -> Operation:
    """The key appeared, or its TTL changed, or a scan found it."""
    return b"p", key


def placed(key: bytes, deadline_ms: int, told: bytes) -> Operation:
    """The ledger of another node had this entry. `told`: what is known of the key (`MigratedKeys.verdict`)."""
    return b"m", key, b"%d" % deadline_ms, told


def scan(cursor: bytes, count: int, room: int, match: bytes, own_prefix: bytes) -> Operation:
    """Scan from `cursor`, and record keys that do not begin with `own_prefix`. At most one in a batch.

    It scans about `count` keys, or `room` bytes of matching keys.
    """
    return b"s", cursor, b"%d" % count, b"%d" % room, match, own_prefix


def gap_closed(gap: ClosedGap) -> Operation:
    """The gap is reconciled: its record goes into the outbox."""
    missed = "" if gap.missed is None else gap.missed
    words = (gap.node, gap.opened_ms, gap.closed_ms, gap.cause, missed, gap.reading)
    return b"g", *(str(word).encode(errors="backslashreplace") for word in words)


@dataclass(frozen=True, slots=True)
class FilledGap:
    """The record of a gap that was filled from the replication backlog. Times are Unix ms, on Redis's clock."""

    node: str
    opened_ms: int
    closed_ms: int
    cause: str
    filled: int
    """How many expirations came from there."""
    excess: int
    """How many of them are deletions."""


def gap_filled(gap: FilledGap) -> Operation:
    """Nothing has to be reconciled. The record goes into the outbox, and the stored counts of gaps stay."""
    words = (gap.node, gap.opened_ms, gap.closed_ms, gap.cause, gap.filled, gap.excess)
    return b"F", *(str(word).encode(errors="backslashreplace") for word in words)


_EXAMPLES = (
    proven(b"", 0),
    expired(b""),
    expired_ahead(b""),
    gone(b""),
    gone_elsewhere(b""),
    resolve(b"", b"", b"", b""),
    forget(b""),
    appeared(b""),
    placed(b"", 0, b""),
    scan(b"", 0, 0, b"", b""),
    gap_closed(ClosedGap("", 0, 0, "", None)),
    gap_filled(FilledGap("", 0, 0, "", 0, 0)),
)
_LENGTHS = {example[0]: len(example) for example in _EXAMPLES}
_EXPIRATIONS = frozenset(example[0] for example in (expired(b""), expired_ahead(b"")))


def each(batch: Sequence[bytes]) -> Iterator[Operation]:
    """The operations of a batch. Raises KeyError for a word that is no operation."""
    at = 0
    while at < len(batch):
        length = _LENGTHS[batch[at]]
        yield tuple(batch[at : at + length])
        at += length


def unproven(batch: Sequence[bytes]) -> list[bytes]:
    """The same operations without the proofs of values, which hold only at one moment, on one connection."""
    name = proven(b"", 0)[0]
    return [word for operation in each(batch) if operation[0] != name for word in operation]


def notified(batch: Sequence[bytes]) -> int:
    """How many notifications of expirations a batch handles."""
    return sum(operation[0] in _EXPIRATIONS for operation in each(batch))


def pieces(batch: Sequence[bytes], most_bytes: int) -> Iterator[list[bytes]]:
    """The same operations as smaller batches: each has about `most_bytes` of keys at most, or one operation."""
    piece, size = list[bytes](), 0
    for operation in each(batch):
        if piece and size + len(operation[1]) > most_bytes:
            yield piece
            piece, size = [], 0
        piece += operation
        size += len(operation[1])
    yield piece
