"""What a script is asked, and what it answers: the values that cross between the protocol and Redis."""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.redis.protocol.anchor import Measured

Argument = bytes | str | int

GONE, ALIVE, MOVED = b"gone", b"alive", b"moved"
"""What a touch sees of a key. *Moved*: its slot is on another node of the cluster, or on its way to one."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to change the ledger."""

    fence: int
    handled_ms: int | None
    """Up to when the former epoch had handled every notification; None for the first epoch of all."""
    former: str | None
    """The last holder, empty if it gave the lease back. None: first start, or the lease was lost (flushed, evicted)."""
    heard: int = 0
    """Notifications of expirations handled by all former epochs."""
    audit: str = ""
    """The last reading of the audit that a former epoch has stored with `handled_ms`."""
    forgotten: int = 0
    """Fields of the lease and entries of the ledger that no bridge can have written, and that are gone now."""
    place: bytes = b""
    """How far it has handled the stream: see `place.Place`. Empty where that is not known."""
    gap_open: bool = True
    """Whether a gap was open there."""
    boundary: bytes = b""
    """The mark that the lease was granted with."""
    silent_ms: int | None = None
    """How long the former holder had given no sign of life; None where it gave the lease back, or there was none."""
    fingerprint: bytes = b""
    """Of the former holder's settings: see `fingerprint.py`. Empty where that is not known."""


@dataclass(frozen=True, slots=True)
class Held:
    """The lease is held by another bridge or, if there is no holder, for another one to take."""

    holder: str
    remaining_ms: int
    place: bytes = b""
    """How far the holder has handled the stream."""
    fingerprint: bytes = b""
    """Of the holder's settings, or those of the last one. Empty where that is not known."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What is asked for with a lease."""

    instance: str
    shards: int = 1
    """How many there are; kept for whoever asks."""
    listens: bool = False
    """Whether the bridge listens to its channel of `Names.alive`: then others see at once when it dies."""
    entitled: bool = True
    """Whether it may take what is free. Else only what a dead bridge has left, or one that has ended."""
    able: bool = True
    """Whether it reaches its broker; the holder can see that."""
    yields: bool = False
    """Whether it leaves what is free to another bridge, if it does not reach its broker, and the other one does."""
    fingerprint: bytes = b""
    """Of its settings."""


@dataclass(frozen=True, slots=True)
class State:
    """What every script says of the ledger after it."""

    now_us: int
    """Redis's clock, in microseconds."""
    lowest_ms: int | None
    """The first deadline in the ledger."""
    size: int
    depth: int
    """Expirations in the outbox."""


@dataclass(frozen=True, slots=True)
class Touch:
    """Touch keys, extend the lease, and leave a mark."""

    fence: int
    mark: bytes
    limit: int
    """Of what is due, that many entries at most; of a walk, about that many."""
    room: int
    """Bytes of keys in the reply, give or take a few of them: no more entries are touched than fit."""
    heard: int
    """Notifications of expirations handled so far."""
    walk: bytes | None = None
    """Where to go on with the walk of the whole ledger. None: touch what is due."""
    skip: int = 0
    """Due entries to pass over, in front of all others."""
    handled_ms: int | None = None
    """Up to when everything is handled; to be stored. None while a gap is open: what is stored stays."""
    reading: str = ""
    """The audit's reading, to be stored with `handled_ms`."""
    count: bool = False
    """Whether to read the audit's counters."""
    canary: str | int = ""
    """What to do about the canary: see `Canary.order`."""
    void: int = 0
    """How many canaries turned out void since the last touch."""
    place: bytes = b""
    """How far the stream is handled; empty where the next epoch is not to go on from there."""
    gap_open: bool = True
    moving: bool = False
    """In a cluster: whether slots move, or have moved since the last touch."""
    measure: bool = False
    """Whether to read where the replication stream is: for an anchor."""


@dataclass(frozen=True, slots=True)
class Touched:
    """What a touch saw."""

    state: State
    cursor: bytes
    """Where the walk goes on; `0` when it is through."""
    sights: Sequence[tuple[bytes, bytes, bytes, bytes]]
    """Key, score, GONE, ALIVE or MOVED, `1` (due) or `0`: the arguments of `operations.resolve`."""
    complete: bool = True
    """Whether all that is due was touched. Of no meaning in a walk."""
    dead: int = 0
    """Dead letters kept."""
    canary_gone: bool = False
    """Whether the canary that was looked for is gone."""
    counters: Sequence[bytes | int] = ()
    """For the audit, if it was asked for and Redis tells: see `audit.Reading.of`."""
    moved: int = 0
    """Entries that are to be placed: see `epoch/placement.py`."""
    measured: Measured | None = None
    """If it was asked for, and Redis says."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What one batch did."""

    state: State
    by_notification: int
    by_sweep: int
    recovered: int
    ambiguous: int
    """Of the open gap so far."""
    emptied: bool
    ahead: Sequence[bytes]
    next_part: bytes = b""
    """Where the scan goes on; `0` when it is through, empty where nothing was scanned."""
    found: int = 0
    """How many keys were scanned."""
    announced: bool = True
    """Whether what it had to announce is in the stream."""
    forgotten: int = 0
    """Entries that left the ledger unannounced, since `BRIDGE_KEYS` no longer matches their keys."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One apply, kept until it is answered: sent again it is not applied again."""

    fence: int
    seq: int
    gap_start_ms: int
    heard: int
    """Notifications of expirations handled, with those of this batch."""
    mark: bytes
    operations: Sequence[bytes]
    """The words of its operations: see `operations.py`."""
    place: bytes = b""
    """How far the stream is handled with it; empty where the next epoch is not to go on from there."""
