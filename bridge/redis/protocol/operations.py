"""The operations of one batch, as `apply.lua` reads them: one constructor each.

Their names on the wire, one letter each, stand only here and in the header of `apply.lua`, which says what each does.
An operation is a tuple of words; how many depends on its name alone. A batch is the words of all its operations, one
after the other, in the order of the stream. `scan` and `appeared` come last.
"""

from dataclasses import dataclass

Operation = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ClosedGap:
    """The record of a gap that is reconciled, without the counts, which Redis keeps."""

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


def expired_ahead(key: bytes) -> Operation:
    """The key's `expired` was notified, and was older than the entry that a batch wrote."""
    return b"X", key


def gone(key: bytes) -> Operation:
    """The key was deleted, evicted, renamed or moved away. Not to be sent while the key is ahead."""
    return b"d", key


def resolve(key: bytes, score: bytes, state: bytes, due: bytes) -> Operation:
    """The mark of the touch that saw this is back (`calls.Touched.sights`). Not to be sent while the key is ahead."""
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


def scan(cursor: bytes, count: int, match: bytes, own_prefix: bytes) -> Operation:
    """Scan about `count` keys from `cursor`, and record those that do not begin with `own_prefix`. One a batch."""
    return b"s", cursor, b"%d" % count, match, own_prefix


def gap_closed(gap: ClosedGap) -> Operation:
    """The gap is reconciled: its record goes into the outbox."""
    missed = "" if gap.missed is None else gap.missed
    words = (gap.node, gap.opened_ms, gap.closed_ms, gap.cause, missed, gap.reading)
    return b"g", *(str(word).encode(errors="backslashreplace") for word in words)
