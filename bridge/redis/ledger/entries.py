"""How an entry of the outbox is read: `apply.lua` wrote it.

An entry that was adopted (`adopt.lua`) has fields that say where it was before, because its ids are made from that.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import msgpack

from bridge.contracts import Entry, Origin
from bridge.expiration import NOT_CAPTURED, Event, Expiration, FieldExpiration, GapRecord, Identity, Value, Via
from bridge.redis.ledger.letters import value_of, whole

_VALUE = re.compile(rb"(exact|value):(\d{1,4})")
_VIA = {b"n": Via.NOTIFICATION, b"s": Via.SWEEP}
_NOT_READ = object()
_NOT_CAPTURED = Value(missing=NOT_CAPTURED)
"""Equals nothing that an entry may hold: a damaged one may hold a null."""


class Unreadable(Exception):
    """Another program has written the entry, or damaged it. The message holds nothing of its content."""


def read_entry(
    identity: Identity,
    entry_id: bytes,
    fields: Mapping[bytes, bytes],
    shard: int = 0,
    wanted: Callable[[bytes], object] | None = None,
) -> Entry:
    """The entry, with at least one event. `wanted`: whether the value of a key is wanted. Raises Unreadable."""
    try:
        events: list[Event] = []
        value_bytes = 0
        place = _origin(fields)
        origin = fields.get(b"origin", entry_id)
        if b"claims" in fields:
            expirations = list(_expirations(identity, origin, whole(fields[b"at"]), fields[b"claims"]))
            value_bytes = _add_values(expirations, fields, wanted)
            events += expirations
        if b"fields" in fields:
            events += _fields(identity, whole(fields[b"at"]), fields[b"fields"])
        if b"gap" in fields:
            events.append(_gap(identity, origin, fields[b"gap"], int(fields.get(b"shard", shard))))
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, msgpack.UnpackException) as error:
        raise Unreadable(type(error).__name__) from error
    if not events:
        raise Unreadable("there is nothing in it")
    return Entry(entry_id, events, shard, place, value_bytes)


def _add_values(
    expirations: list[Expiration], fields: Mapping[bytes, bytes], wanted: Callable[[bytes], object] | None
) -> int:
    """Give the expirations the values that are in the entry. Returns how many bytes of values it has."""
    values, size = dict[int, Value](), 0
    for name, record in fields.items():
        if found := _VALUE.fullmatch(name):
            values[int(found[2])] = read_value(record, exact=found[1] == b"exact")
            size += len(record)
    if values or wanted is not None:
        for index, expiration in enumerate(expirations):
            value = values.pop(index, None)
            if value is None and wanted is not None and wanted(expiration.key):
                value = _NOT_CAPTURED
            if value is not None:
                expirations[index] = Expiration(*expiration[:5], value)
    if values:
        raise IndexError("values of no expiration")
    return size


def read_value(record: bytes, *, exact: bool) -> Value:
    """What `capture.lua` has held of one key. Raises ValueError."""
    about, _, content = record.partition(b"\n")
    _, captured, kind, missing, size = about.split(b" ")
    return value_of(kind, captured, exact, content, missing, size)


def _origin(fields: Mapping[bytes, bytes]) -> Origin | None:
    return Origin.of(int(fields.get(b"shard", 0)), fields[b"origin"]) if b"origin" in fields else None


def _expirations(identity: Identity, entry_id: bytes, observed_ms: int, packed: bytes) -> Iterator[Expiration]:
    claims = cast("list[Any]", msgpack.unpackb(packed, raw=True))
    of_deadline = identity.of_deadline
    last: object = _NOT_READ  # keys often expire in runs of one deadline
    deadline_ms = 0
    for index, (key, deadline, by) in enumerate(zip(claims[::3], claims[1::3], claims[2::3], strict=True)):
        if deadline is False:
            yield Expiration(identity.of_entry(key, entry_id, index), key, None, observed_ms, _VIA[by])
            continue
        if deadline != last:
            last, deadline_ms = deadline, whole(deadline)
        yield Expiration(of_deadline(key, deadline_ms), key, deadline_ms, observed_ms, _VIA[by])


def _fields(identity: Identity, observed_ms: int, packed: bytes) -> Iterator[FieldExpiration]:
    flat = iter(cast("list[bytes | int]", msgpack.unpackb(packed, raw=True)))
    for hash_, name, deadline, by in zip(flat, flat, flat, flat, strict=True):
        key, field, deadline_ms = cast("bytes", hash_), cast("bytes", name), whole(deadline)
        via = _VIA[cast("bytes", by)]
        yield FieldExpiration(identity.of_field(key, field, deadline_ms), key, field, deadline_ms, observed_ms, via)


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
