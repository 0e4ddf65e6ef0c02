"""The switches of the models: the rules of the protocol, all on, and the bounds within which they are searched.

A rule that is switched off is replaced by what one would have written without knowing the trace that it prevents.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """The rules of the ledger protocol (`bridge/redis/PROTOCOL.md`), by what each says."""

    read_and_write_in_one_script: bool = True
    """`p` reads a key and writes its entry in the same script. Off: the entry is written by a later script."""
    due_entries_stay: bool = True
    """`p` does not change a due entry. Off: it becomes what was read."""
    due_is_strictly_past: bool = True
    """An entry is due when its deadline is past. Off: from the deadline on."""
    every_expired_is_claimed: bool = True
    """`x` claims always. Off: only where the entry is due, or there is none."""
    claims_pass_a_full_outbox: bool = True
    """A full outbox stops touching only. Off: it drops `x`."""
    stream_order: bool = True
    """A batch keeps the order of the stream. Off: first all that expired, then what was deleted, resolves last."""
    wait_for_the_mark: bool = True
    """What a touch saw is resolved when its mark comes back. Off: whenever, by the next script."""
    resolve_at_the_mark: bool = True
    """…at the mark's place in the stream. Off: by a later script."""
    touch_decides: bool = True
    """A key that a touch saw gone has ended. Off: it is looked at again, and not claimed if it is there."""
    touch_changes_no_entry: bool = True
    """Off: an entry whose key the touch saw alive is changed by the touch."""
    touch_is_a_write: bool = True
    """A touch waits while writes are paused. Off: it reads, and is told that keys are gone which are still there."""
    resolve_reads_again: bool = True
    """A resolve writes what it reads. Off: what the touch saw."""
    resolve_is_of_the_entry: bool = True
    """A resolve is for the very entry that was touched: not if the key is ahead. Off: for whatever entry it has."""
    resolve_leaves_to_hint: bool = True
    """A key seen alive, and gone now, keeps its entry until its hint comes. Off: the entry is removed."""
    ahead_keeps_from_expired: bool = True
    """`expired` of a key that is ahead leaves the entry alone (`X`). Off: it is an `x`."""
    ahead_keeps_from_deleted: bool = True
    """`del` of a key that is ahead is dropped. Off: it removes the entry."""
    unchanged_is_ahead: bool = True
    """A key is ahead, too, if it was read with the very deadline that its entry has. Off: it is not."""
    claimed_is_resolved: bool = True
    """An `x` before the mark takes the key out of what the touch has to resolve. Not for safety: it saves work."""
    sequence_numbers: bool = True
    """A script that is sent again is not done again. Off: it is."""
    ids_of_their_own: bool = True
    """An expiration without a known deadline has the id of its place in the outbox. Off: of the time of its claim."""
    walk: bool = True
    """A gap is closed after all of the ledger was walked. Off: after what was due is resolved."""
    overdue_resolved_first: bool = True
    """A gap is closed after what was overdue at its start is resolved. Off: after the walk and the scan."""
    count_ambiguous: bool = True
    """What takes an entry that was overdue at the start of a gap is counted. Off: it is not."""
    count_gone: bool = True
    """So is an entry that is not due, and its key gone, while a gap is open. Off: it is not."""
    counts_outlive_epochs: bool = True
    """The count of a gap is kept until it is closed. Off: it dies with its epoch, or with a lost reply."""
    gap_starts_subscribed: bool = True
    """The start of a gap is read after the subscription is confirmed. Off: when the former one was lost."""
    seen_when_closed: bool = True
    """`seen_ms` is stored only while no gap is open. Off: at every touch."""


@dataclass(frozen=True)
class Bounds:
    """How far the ledger model is searched, and what may happen in it."""

    keys: int = 1
    time: int = 4
    """The last moment of the clock, which starts at 0."""
    user: int = 3
    """Operations of the user's."""
    faults: int = 1
    """Cut connections, crashes, lost replies, pauses, and whatever else is switched on below."""
    scans: int = 0
    """Scans beyond the one of each epoch."""
    ttls: tuple[int, ...] = (1, 2)
    """TTLs that the user gives a key."""
    absolute: int = 0
    """A deadline that the user may give a key again and again; 0: none."""
    past: bool = False
    """The user may set a key whose deadline is past, the same as that of its former life."""
    plain: bool = True
    """The user may set a key without a TTL over one with a TTL (no hint)."""
    delete: bool = True
    rename: bool = False
    """The user may rename the first key to the second."""
    flush: bool = False
    batch: int = 3
    """Hints in one batch, at most."""
    limit: int = 0
    """Keys in one touch, at most; 0: all."""
    cut: bool = True
    """The epoch may be cut off: the connection is lost, or the process dies."""
    lost_reply: bool = False
    pause: bool = False
    """CLIENT PAUSE WRITE."""
    full: bool = False
    """The outbox may reach its limit."""
    span: bool = False
    """Whether to check that the span of each gap covers what was missed."""
    clock_back: bool = False
    """Redis's clock may be set back: not promised."""


@dataclass(frozen=True)
class DeliveryRules:
    """The rules of claims, lease and delivery between two processes."""

    fence: bool = True
    """Scripts of a former epoch are refused. Off: they are done."""
    fence_per_epoch: bool = True
    """Each epoch takes a new fence. Off: not the next one of the same process."""
    sequence_numbers: bool = True
    """A claim that is sent again is not done again. Off: it is."""
    subscribe_under_the_lease: bool = True
    """A standby does not listen. Off: it does, and handles what it heard once it has the lease."""
    outbox_until_settled: bool = True
    """What is claimed is read from the outbox. Off: it is published when the claim is answered, and read only when a
    process starts."""
    settle_when_acked: bool = True
    """An entry is settled when the broker has acked it. Off: when it was handed over to be published."""


@dataclass(frozen=True)
class DeliveryBounds:
    """How far the delivery model is searched."""

    keys: str = "ru"
    """One letter per key, each of which expires once: `r` its deadline is recorded, `u` it is not."""
    faults: int = 2
    """Crashes, pauses, lost connections, lapsed leases, lost acks."""
