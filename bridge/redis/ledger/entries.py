"""How an entry of the outbox is read: `apply.lua` wrote it.

One that was adopted (`adopt.lua`) has fields that tell where it was before, as its ids are made of that.
"""

from collections.abc import Iterator, Mapping
from typing import cast

import msgpack

from bridge.contracts import Entry, Origin
from bridge.expiration import Event, Expiration, GapRecord, Identity, Via
from bridge.redis.ledger.letters import whole

_VIA = {b"n": Via.NOTIFICATION, b"s": Via.SWEEP}


class Unreadable(Exception):
    """Somebody else has written the entry, or damaged it. The message holds nothing of what is in it."""


def read_entry(identity: Identity, entry_id: bytes, fields: Mapping[bytes, bytes], shard: int = 0) -> Entry:
    """The entry, with at least one event. Raises Unreadable."""
    try:
        events: list[Event] = []
        place = _origin(fields)
        origin = fields.get(b"origin", entry_id)
        if b"claims" in fields:
            events += _expirations(identity, origin, whole(fields[b"at"]), fields[b"claims"])
        if b"gap" in fields:
            events.append(_gap(identity, origin, fields[b"gap"], int(fields.get(b"shard", shard))))
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, msgpack.UnpackException) as error:
        raise Unreadable(type(error).__name__) from error
    if not events:
        raise Unreadable("there is nothing in it")
    return Entry(entry_id, events, shard, place)


def _origin(fields: Mapping[bytes, bytes]) -> Origin | None:
    return Origin.of(int(fields.get(b"shard", 0)), fields[b"origin"]) if b"origin" in fields else None


def _expirations(identity: Identity, entry_id: bytes, observed_ms: int, packed: bytes) -> Iterator[Expiration]:
    flat = iter(cast("list[bytes | int | bool]", msgpack.unpackb(packed, raw=True)))
    for index, (name, deadline, by) in enumerate(zip(flat, flat, flat, strict=True)):
        key, via = cast("bytes", name), _VIA[cast("bytes", by)]
        if deadline is False:
            yield Expiration(identity.of_entry(key, entry_id, index), key, None, observed_ms, via)
        else:
            deadline_ms = whole(deadline)
            yield Expiration(identity.of_deadline(key, deadline_ms), key, deadline_ms, observed_ms, via)


def _gap(identity: Identity, entry_id: bytes, packed: bytes, shard: int) -> GapRecord:
    node, opened, closed, cause, missed, recovered, ambiguous, *filling = msgpack.unpackb(packed, raw=True)
    filled, excess = map(whole, filling) if filling else (None, None)
    name = node.decode()
    return GapRecord(
        identity.of_gap(name, entry_id, shard),
        name,
        whole(opened),
        whole(closed),
        cause.decode(),
        whole(missed) if missed else None,
        whole(recovered),
        whole(ambiguous),
        filled=filled,
        excess=excess,
    )


def heard_of(packed: bytes) -> list[tuple[bytes, int | None]]:
    """Keys and deadlines of the claims of an entry whose expirations were notified. Raises Unreadable."""
    try:
        flat = iter(cast("list[bytes | int | bool]", msgpack.unpackb(packed, raw=True)))
        triples = zip(flat, flat, flat, strict=True)
        return [
            (cast("bytes", key), None if deadline is False else whole(deadline))
            for key, deadline, by in triples
            if by == b"n"
        ]
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise Unreadable(type(error).__name__) from error
