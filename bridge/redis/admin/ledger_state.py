"""The bridge's own keys in one database, as people want to know of them: ledger, outbox, leases, and a few expirations.

Guarantees: nothing is changed. No user key is returned, but by `read_expirations`. What is read together is not one
atomic moment.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import cast

from bridge.expiration import Expiration, FieldExpiration, Identity, expires
from bridge.redis.admin.inspector import Inspector
from bridge.redis.ledger.entries import Unreadable, read_entry
from bridge.redis.protocol.fingerprint import Fingerprint, differences, unpacked
from bridge.redis.protocol.own_keys import Names
from bridge.settings import Settings, agreement


@dataclass(frozen=True, slots=True)
class LeaseState:
    """The lease, held or not."""

    holder: str | None
    """None: it was released."""
    until_ms: int
    fence: int
    handled_ms: int | None
    """Up to when every notification was handled; None before the first epoch got that far."""
    fingerprint: Fingerprint
    """Of the settings of the bridge that has it, or had it last. Empty: an older one, which does not say."""

    @property
    def last(self) -> str:
        """Who has it, or had it last, for people."""
        return self.holder or "the last bridge"

    def held(self, now_ms: int) -> bool:
        """Whether a bridge has it."""
        return self.holder is not None and self.until_ms > now_ms


LOOKED_AT = 1000
"""Hashes whose fields are counted; of more, these are taken for all."""


@dataclass(frozen=True, slots=True)
class ValueState:
    """Values of keys that expire."""

    held: int
    """Of keys that are about to expire."""
    held_bytes: int
    outbox_bytes: int
    """Of those that wait in the outbox."""

    @property
    def bytes(self) -> int:
        """Of all of them."""
        return self.held_bytes + self.outbox_bytes


@dataclass(frozen=True, slots=True)
class FieldState:
    """The field ledger."""

    hashes: int
    """Hashes that have fields with deadlines."""
    recorded: int
    """Their fields with deadlines."""
    estimated: bool
    """Whether that is about how many: not all hashes were looked at."""
    excluded: int
    """Hashes with too many fields: none of theirs is announced."""
    next_deadline_ms: int | None
    ambiguous: int
    """Fields that may have expired, and were not announced, since the lease exists."""


@dataclass(frozen=True, slots=True)
class LedgerState:
    """The bridge's own keys in one database. Times are Unix milliseconds on Redis's clock."""

    now_ms: int
    ledger_size: int
    next_deadline_ms: int | None
    outbox_entries: int
    outbox_expirations: int | None
    """None where the lease, which counts them, does not exist."""
    outbox_oldest_ms: int | None
    """When the oldest entry of the outbox was claimed."""
    dead_letters: int
    moved: int
    """Entries that came with keys from other nodes of a cluster, or are to follow some there."""
    leases: Sequence[LeaseState | None]
    """Of each shard. None: no bridge has run here, or its lease was lost."""
    values: ValueState | None = None
    """None where no values are wanted."""
    fields: FieldState | None = None
    """None where no fields are bridged."""

    @property
    def lease(self) -> LeaseState | None:
        """Of the first shard, which mostly is the only one."""
        return self.leases[0]


@dataclass(frozen=True, slots=True)
class Expirations:
    """A few expirations, with their keys: those ahead, and those that the broker has not acked."""

    ahead: Sequence[tuple[bytes, int]]
    """Keys with the first deadlines of the ledger, in Unix milliseconds."""
    waiting: Sequence[Expiration | FieldExpiration]
    """The last ones of the outbox, newest first."""


async def read_state(inspector: Inspector) -> LedgerState:
    """The bridge's own keys. Uses only commands that the bridge itself needs."""
    pipeline = inspector.client.pipeline(transaction=False)
    pipeline.time()
    for names in await inspector.shards():
        pipeline.zcard(names.deadlines)
        pipeline.zrange(names.deadlines, 0, 0, withscores=True)
        pipeline.xlen(names.outbox)
        pipeline.xrange(names.outbox, count=1)
        pipeline.xlen(names.dead)
        pipeline.zcard(names.moved)
        pipeline.hmget(names.lease, "holder", "until", "fence", "seen_ms", "depth", "fingerprint")
    clock, *replies = await inspector.send(pipeline)
    sizes, lowest, entries, oldest, dead, moved, fields = (replies[kind::7] for kind in range(7))
    leases = cast("list[list[bytes | None]]", fields)
    depths = [int(lease[4]) for lease in leases if lease[4] is not None]
    claimed = [_claimed_ms(first[0][1]) for first in oldest if first]
    return LedgerState(
        now_ms=int(clock[0]) * 1000 + int(clock[1]) // 1000,
        ledger_size=sum(sizes),
        next_deadline_ms=min((int(first[0][1]) for first in lowest if first), default=None),
        outbox_entries=sum(entries),
        outbox_expirations=sum(depths) if depths else None,
        outbox_oldest_ms=min((ms for ms in claimed if ms is not None), default=None),
        dead_letters=sum(dead),
        moved=sum(moved),
        leases=[_lease(lease) for lease in leases],
        values=None if inspector.settings.values is None else await _values(inspector),
        fields=await _fields(inspector) if inspector.settings.fields else None,
    )


async def _values(inspector: Inspector) -> ValueState:
    pipeline = inspector.client.pipeline(transaction=False)
    for names in await inspector.shards():
        pipeline.hlen(names.values)
        pipeline.hmget(names.lease, "held_bytes", "value_bytes")
    replies = await inspector.send(pipeline)
    sizes = [[int(size or 0) for size in lease] for lease in replies[1::2]]
    return ValueState(sum(replies[::2]), sum(held for held, _ in sizes), sum(waiting for _, waiting in sizes))


async def _fields(inspector: Inspector) -> FieldState:
    shards = await inspector.shards()
    pipeline = inspector.client.pipeline(transaction=False)
    for names in shards:
        pipeline.zcard(names.fields)
        pipeline.zcount(names.fields, 0, 0)
        pipeline.zrange(names.fields, "(0", f"({2**53}", byscore=True, offset=0, num=1, withscores=True)
        pipeline.hget(names.lease, "fields_ambiguous")
    replies = await inspector.send(pipeline)
    sizes, excluded, lowest, ambiguous = (replies[kind::4] for kind in range(4))
    hashes = sum(sizes) - sum(excluded)
    counts = [count for names in shards for count in await _counted(inspector, names)]
    estimated = len(counts) < hashes
    return FieldState(
        hashes,
        round(sum(counts) / len(counts) * hashes) if estimated and counts else sum(counts),
        estimated,
        sum(excluded),
        min((int(first[0][1]) for first in lowest if first), default=None),
        sum(int(count or 0) for count in ambiguous),
    )


async def _counted(inspector: Inspector, names: Names) -> list[int]:
    """How many fields some hashes of a field ledger have: of all, or of about LOOKED_AT."""
    found, cursor = set[bytes](), -1
    while cursor and len(found) < LOOKED_AT:
        pipeline = inspector.client.pipeline(transaction=False)
        pipeline.zscan(names.fields, max(cursor, 0), count=LOOKED_AT)
        [(cursor, page)] = await inspector.send(pipeline)
        found |= {key for key, first in page if first}
    pipeline = inspector.client.pipeline(transaction=False)
    for key in found:
        pipeline.zcard(names.field_prefix + key)
    return cast("list[int]", await inspector.send(pipeline)) if found else []


async def read_expirations(inspector: Inspector, limit: int) -> Expirations:
    """Up to `limit` expirations that are next, and as many that were claimed last and wait in the outbox."""
    identity, shards = Identity(inspector.settings.source, inspector.endpoint.db), await inspector.shards()
    pipeline = inspector.client.pipeline(transaction=False)
    for names in shards:
        pipeline.zrange(names.deadlines, 0, limit - 1, withscores=True)
        pipeline.xrevrange(names.outbox, count=2 * limit)  # some of them are gap records
    replies = await inspector.send(pipeline)
    ahead = sorted([(key, int(deadline)) for page in replies[::2] for key, deadline in page], key=itemgetter(1))
    waiting: list[Expiration | FieldExpiration] = []
    for names, entries in zip(shards, replies[1::2], strict=True):
        for entry_id, fields in entries:
            with suppress(Unreadable):  # the bridge puts it aside
                events = reversed(read_entry(identity, entry_id, fields, names.shard).events)
                waiting += [event for event in events if expires(event)]
    if len(shards) > 1:
        waiting.sort(key=attrgetter("observed_ms"), reverse=True)
    return Expirations(ahead[:limit], waiting[:limit])


def total(states: Sequence[LedgerState]) -> LedgerState:
    """What they hold together."""
    depths = [state.outbox_expirations for state in states if state.outbox_expirations is not None]
    return LedgerState(
        now_ms=max(state.now_ms for state in states),
        ledger_size=sum(state.ledger_size for state in states),
        next_deadline_ms=_first(state.next_deadline_ms for state in states),
        outbox_entries=sum(state.outbox_entries for state in states),
        outbox_expirations=sum(depths) if depths else None,
        outbox_oldest_ms=_first(state.outbox_oldest_ms for state in states),
        dead_letters=sum(state.dead_letters for state in states),
        moved=sum(state.moved for state in states),
        leases=[lease for state in states for lease in state.leases],
        values=_all_values([state.values for state in states if state.values is not None]),
        fields=_all_fields([state.fields for state in states if state.fields is not None]),
    )


def _all_values(parts: Sequence[ValueState]) -> ValueState | None:
    if not parts:
        return None
    return ValueState(
        sum(part.held for part in parts),
        sum(part.held_bytes for part in parts),
        sum(part.outbox_bytes for part in parts),
    )


def _all_fields(parts: Sequence[FieldState]) -> FieldState | None:
    if not parts:
        return None
    return FieldState(
        sum(part.hashes for part in parts),
        sum(part.recorded for part in parts),
        any(part.estimated for part in parts),
        sum(part.excluded for part in parts),
        _first(part.next_deadline_ms for part in parts),
        sum(part.ambiguous for part in parts),
    )


def differing(state: LedgerState, settings: Settings) -> Mapping[str, str]:
    """Which bridges, that have a lease or had it last, have set otherwise what all must set alike; how, in words."""
    here = agreement(settings)
    found = {lease.last: differences(lease.fingerprint, here) for lease in state.leases if lease is not None}
    return {bridge: "; ".join(words) for bridge, words in found.items() if words}


def mixed(parts: Sequence[Expirations], limit: int) -> Expirations:
    """The first `limit` ahead, and the last that wait, of all of them."""
    if len(parts) == 1:
        return parts[0]
    ahead = sorted((entry for part in parts for entry in part.ahead), key=itemgetter(1))
    waiting = sorted((event for part in parts for event in part.waiting), key=attrgetter("observed_ms"), reverse=True)
    return Expirations(ahead[:limit], waiting[:limit])


def _first(times: Iterable[int | None]) -> int | None:
    return min((time for time in times if time is not None), default=None)


def _claimed_ms(fields: Mapping[bytes, bytes]) -> int | None:
    """When an entry was claimed; None for one that the bridge did not write."""
    try:
        return int(fields[b"at"])
    except (KeyError, ValueError):
        return None


def _lease(fields: list[bytes | None]) -> LeaseState | None:
    holder, until, fence, seen, _, fingerprint = fields
    if fence is None:
        return None
    of_fence, _, settings = (fingerprint or b"").partition(b" ")
    return LeaseState(
        holder=holder.decode(errors="replace") if holder else None,
        until_ms=int(until or 0),
        fence=int(fence),
        handled_ms=int(seen) if seen else None,
        fingerprint=unpacked(settings) if of_fence == fence else {},
    )
