"""The requests to scripts, and their answers: the values that cross between the protocol and Redis.

Those of each batch and touch are named tuples: a frozen dataclass takes several times as long to make.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bridge.redis.protocol.anchor import Measured

Argument = bytes | str | int
StreamEntry = tuple[bytes, Mapping[bytes, bytes]]
"""An entry of the outbox: its id, its fields."""

GONE, ALIVE, MOVED = b"gone", b"alive", b"moved"
"""What a touch sees of a key. *Moved*: its slot is on another node of the cluster, or on its way to one."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to change the ledger."""

    fence: int
    handled_ms: int | None
    """Up to when the former epoch had handled every notification; None for the very first epoch."""
    former: str | None
    """The last holder, empty if it gave the lease back. None: first start, or the lease was lost (flushed, evicted)."""
    heard: int = 0
    """Notifications of expirations handled by all former epochs."""
    audit: str = ""
    """The last reading of the audit that a former epoch has stored with `handled_ms`."""
    forgotten: int = 0
    """How many fields of the lease and entries of the ledger were removed, because no bridge can have written them."""
    place: bytes = b""
    """How far the former epoch has handled the stream: see `place.Place`. Empty where that is not known."""
    gap_open: bool = True
    """Whether the former epoch's gap was open."""
    boundary: bytes = b""
    """The mark that was left when the lease was granted."""
    silent_ms: int | None = None
    """For how long the former holder had given no sign of life; None if it gave the lease back, or there was none."""
    fingerprint: bytes = b""
    """That of the former holder's settings: see `fingerprint.py`. Empty where that is not known."""
    values: int = 0
    """How many values the former holder has captured, and not claimed."""
    value_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """Another bridge holds the lease or, if there is no holder, another bridge should take it."""

    holder: str
    remaining_ms: int
    place: bytes = b""
    """How far the holder has handled the stream."""
    fingerprint: bytes = b""
    """That of the holder's settings, or of the last holder's. Empty where that is not known."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a bridge says of itself when it asks for the lease."""

    instance: str
    shards: int = 1
    """How many there are. It is stored for all bridges."""
    listens: bool = False
    """Whether the bridge listens to its channel of `Names.alive`: then others see at once when it dies."""
    entitled: bool = True
    """Whether it may take a free lease. Otherwise only that of a bridge that has died or stopped."""
    able: bool = True
    """Whether it reaches its broker; the holder can see that."""
    yields: bool = False
    """Whether it leaves a free lease to another bridge, if it does not reach its broker, and the other one does."""
    late: bool = False
    """Whether it has only just begun to listen: then it leaves a free lease to another bridge that listens."""
    hot: bool = False
    """Whether it could go on from the stored place; others can see that."""
    patient: bool = False
    """Whether it leaves a free lease to another bridge that could go on, if it could not itself."""
    fingerprint: bytes = b""
    """That of its settings."""
    keeps_values: bool = False
    """Whether it captures values: else what another bridge has captured is dropped."""


class State(NamedTuple):
    """What every script reports about the ledger as it leaves it."""

    now_us: int
    """Redis's clock, in microseconds."""
    lowest_ms: int | None
    """The first deadline in the ledger."""
    size: int
    depth: int
    """Expirations in the outbox."""


class Touch(NamedTuple):
    """Touch keys, extend the lease, and leave a mark."""

    fence: int
    mark: bytes
    limit: int
    """How many entries: of the due ones at most that many, of a walk about that many."""
    room: int
    """Bytes of keys in the reply, give or take a few keys: no more entries are touched than fit."""
    heard: int
    """Notifications of expirations handled so far."""
    walk: bytes | None = None
    """Where to go on with the walk of the whole ledger. None: touch what is due."""
    skip: int = 0
    """Due entries to pass over, in front of all others."""
    handled_ms: int | None = None
    """Up to when everything is handled; it is stored. None while a gap is open: what is stored stays."""
    reading: str = ""
    """The audit's reading. It is stored with `handled_ms`."""
    audit: bool = False
    """Whether to read the audit's counters."""
    canary: str | int = ""
    """What to do about the canary: see `Canary.order`."""
    void: int = 0
    """How many canaries turned out void since the last touch."""
    place: bytes = b""
    """How far the stream is handled; empty if the next epoch must not go on from there."""
    gap_open: bool = True
    moving: bool = False
    """In a cluster: whether slots move, or have moved since the last touch."""
    measure: bool = False
    """Whether to read the position of the replication stream: for an anchor."""


class Touched(NamedTuple):
    """What a touch saw."""

    state: State
    cursor: bytes
    """Where the walk goes on; `0` when it is done."""
    sights: Sequence[tuple[bytes, bytes, bytes, bytes]]
    """Key, score, GONE, ALIVE or MOVED, `1` (due) or `0`: the arguments of `operations.resolve`."""
    complete: bool = True
    """Whether everything due was touched. It means nothing in a walk."""
    dead: int = 0
    """How many dead letters are kept."""
    canary_gone: bool = False
    """Whether the canary that was looked for is gone."""
    counters: Sequence[bytes | int] = ()
    """For the audit, if asked for, and if Redis reports them: see `audit.Reading.of`."""
    moved: int = 0
    """How many entries wait to be placed: see `epoch/placement.py`."""
    measured: Measured | None = None
    """If asked for, and if Redis reports it."""


class Applied(NamedTuple):
    """What one batch did."""

    state: State
    by_notification: int
    by_sweep: int
    recovered: int
    ambiguous: int
    """Like `recovered`: in the open gap so far."""
    emptied: bool
    ahead: Sequence[bytes]
    next_part: bytes = b""
    """Where the scan goes on; `0` when it is done, empty if nothing was scanned."""
    found: int = 0
    """How many keys were scanned."""
    announced: bool = True
    """Whether its announcement, if there was one, is in the stream."""
    forgotten: int = 0
    """Entries that left the ledger unannounced, because `BRIDGE_KEYS` no longer matches their keys."""
    wrote: bool = False
    """Whether it has put an entry into the outbox."""
    entry: StreamEntry | None = None
    """That entry, if the reply had room for it."""
    first_recorded_ms: int | None = None
    """Where values are wanted: the first deadline that it wrote, of those not in `behind`; None if there is none."""
    value_bytes: int = 0
    """Where values are wanted: bytes of values in Redis."""
    repaired: int = 0
    """1 if something other than values was in their place: it is deleted."""
    values: int = 0
    """Where values are wanted: how many are held, of keys that have not expired yet."""
    behind: Sequence[tuple[bytes, int]] = ()
    """Where values are wanted: keys and deadlines that it wrote, up to `Batch.listed_ms`."""


@dataclass(frozen=True, slots=True)
class Upcoming:
    """The next entries of the ledger."""

    entries: Sequence[tuple[bytes, int]]
    """Keys and deadlines, in order."""
    following_ms: int | None
    """The first deadline after them; None if there is none."""
    counts: Sequence[int]
    """How many entries there are, including these, up to each of the requested deadlines."""


@dataclass(frozen=True, slots=True)
class Capture:
    """Read the values of these keys."""

    fence: int
    asked: Sequence[tuple[bytes, int]]
    """Keys and deadlines."""
    most: int
    """The limit of one value, in bytes."""
    room: int
    """The limit of all values together, in bytes. One value may exceed it."""
    limit: int
    """The limit of values held in Redis, in bytes."""
    fields: bool = False
    """Whether that server knows deadlines of hash fields."""
    tracked: bool = False
    """Whether Redis should report when they are written. The connection has to be one that it tracks."""
    declare: bool = False
    """Whether Redis does so only for keys that a script declares."""


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture did."""

    sizes: Sequence[int]
    """For each of the first keys: how many bytes of its value are held; -1 if it does not have that deadline."""
    changing: Sequence[int]
    """The indices of the keys whose values may change without a write."""
    full: bool
    """Whether values are left out, because those in Redis are at their limit."""
    repaired: int = 0
    """See `Applied`."""
    values: int = 0
    """See `Applied`."""
    value_bytes: int = 0
    """See `Applied`."""


class Settled(NamedTuple):
    """What is left after a settlement."""

    depth: int
    """Expirations in the outbox."""
    dead: int
    """Dead letters."""
    value_bytes: int | None = None
    """Bytes of values in Redis; None where none were settled."""


class Batch(NamedTuple):
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
    room: int = 0
    """Bytes of the entry that it puts into the outbox that its reply may carry."""
    listed_ms: int | None = None
    """Up to which deadline the ledger is listed to capture values; None if none are captured, or claimed with it."""
