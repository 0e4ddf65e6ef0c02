"""How a dead letter is written into its stream, and read back."""

import re
from collections.abc import Mapping, Sequence
from typing import cast

import msgpack

from bridge.contracts import DeadLetter
from bridge.expiration import MISSING, Event, Expiration, FieldExpiration, GapRecord, Value, Via, expires
from bridge.redis.protocol.calls import Argument

EXPIRATION = ("key", "deadline_ms", "observed_ms", "via")
FIELD = ("key", "field", *EXPIRATION[1:])
GAP = ("node", "opened_ms", "closed_ms", "cause", "missed", "recovered", "ambiguous")
FILLED = ("filled", "excess")
"""Fields of the record of a filled gap."""
VALUE = ("value_type", "captured_ms", "value_exact", "value", "value_missing", "value_bytes")
"""Fields of an expiration whose value is wanted."""
PAIRED = frozenset({"hash", "zset"})
COLLECTIONS = PAIRED | {"list", "set"}
"""Types whose content is kept as an array of their elements."""
_ID = re.compile("[0-9a-f]{32}")


def fields_of(letter: DeadLetter) -> list[Argument]:
    """The entry: field, value, field, value, and so on."""
    event = letter.event
    fields: list[Argument] = ["id", event.id, "reason", letter.reason]
    names: Sequence[str] = FIELD if isinstance(event, FieldExpiration) else EXPIRATION
    if isinstance(event, GapRecord):
        names = GAP if event.filled is None else (*GAP, *FILLED)
    for name in names:
        value = getattr(event, name)
        fields += (name, "" if value is None else value)
    if isinstance(event, Expiration) and event.value is not None:
        fields += _fields_of_value(event.value)
    return fields


def _fields_of_value(value: Value) -> list[Argument]:
    content: Argument = b"" if value.content is None else packed(value.content)
    words = (value.kind, value.captured_ms, int(value.exact), content, value.missing, value.size)
    return [word for pair in zip(VALUE, words, strict=True) for word in pair]


def value_of(kind: bytes, captured: bytes, exact: bool, content: bytes, missing: bytes, size: bytes) -> Value:  # noqa: FBT001 - as it is kept
    """A value that was kept. Raises ValueError."""
    why = missing.decode()
    if why and why not in MISSING:
        raise ValueError("not a reason")
    if why:
        return Value(kind.decode(), missing=why, size=whole(size))
    return Value(kind.decode(), whole(captured), exact, unpacked(kind.decode(), content), size=whole(size))


def _value(fields: Mapping[bytes, bytes]) -> Value | None:
    """The inverse of `_fields_of_value`; None where no value was wanted. Raises KeyError or ValueError."""
    if VALUE[0].encode() not in fields:
        return None
    kind, captured, exact, content, missing, size = (fields[name.encode()] for name in VALUE)
    return value_of(kind, captured, exact == b"1", content, missing, size)


def packed(content: bytes | Sequence[bytes]) -> bytes:
    """The content of a value, as it is kept."""
    return content if isinstance(content, bytes) else cast("bytes", msgpack.packb(list(content), use_bin_type=False))


def unpacked(kind: str, content: bytes) -> bytes | Sequence[bytes]:
    """The inverse, of a value of that type. Raises ValueError."""
    if kind not in COLLECTIONS:
        return content
    try:
        found = msgpack.unpackb(content, raw=True)
    except msgpack.UnpackException as error:
        raise ValueError("not the elements of a collection") from error
    if not isinstance(found, list) or not all(isinstance(element, bytes) for element in found):
        raise ValueError("not the elements of a collection")
    if kind in PAIRED and len(found) % 2:
        raise ValueError("not pairs")
    if kind == "zset":
        for score in found[1::2]:
            float(score)
    return found


def weight(letter: DeadLetter) -> int:
    """About how many bytes it has."""
    event = letter.event
    if not expires(event):
        return 0
    value = event.value if isinstance(event, Expiration) else None
    return len(event.key) + (value.size if value is not None and value.content is not None else 0)


def letter_of(fields: Mapping[bytes, bytes]) -> DeadLetter | None:
    """The inverse; None if another program wrote it."""
    try:
        event_id, reason = fields[b"id"].decode(), fields[b"reason"].decode()
        event = _gap(event_id, fields) if b"node" in fields else _expiration(event_id, fields)
    except (KeyError, ValueError):  # UnicodeDecodeError is one
        return None
    return DeadLetter(event, reason) if _ID.fullmatch(event_id) else None


def remark_of(fields: Mapping[bytes, bytes]) -> str:
    """The remark of a dead letter without a message, which `fields.lua` wrote; else empty."""
    return fields[b"reason"].decode(errors="replace") if b"hash" in fields and b"reason" in fields else ""


def whole(value: bytes | int) -> int:
    """A time or a count, as Redis can hold it. Raises ValueError."""
    number = int(value)
    if not 0 <= number < 1 << 63:
        raise ValueError("not a number that Redis can hold")
    return number


def _expiration(event_id: str, fields: Mapping[bytes, bytes]) -> Event:
    key, deadline, observed, via = (fields[name.encode()] for name in EXPIRATION)
    if b"field" in fields:
        return FieldExpiration(event_id, key, fields[b"field"], whole(deadline), whole(observed), Via(via.decode()))
    deadline_ms = whole(deadline) if deadline else None
    return Expiration(event_id, key, deadline_ms, whole(observed), Via(via.decode()), _value(fields))


def _gap(event_id: str, fields: Mapping[bytes, bytes]) -> Event:
    node, opened, closed, cause, missed, recovered, ambiguous = (fields[name.encode()] for name in GAP)
    filled, excess = (whole(fields[name.encode()]) if name.encode() in fields else None for name in FILLED)
    return GapRecord(
        event_id,
        node.decode(),
        whole(opened),
        whole(closed),
        cause.decode(),
        whole(missed) if missed else None,
        whole(recovered),
        whole(ambiguous),
        filled=filled,
        excess=excess,
    )
