"""How a dead letter is written into its stream, and read back."""

import re
from collections.abc import Mapping, Sequence

from bridge.contracts import DeadLetter
from bridge.expiration import Event, Expiration, GapRecord, Via
from bridge.redis.protocol.calls import Argument

EXPIRATION = ("key", "deadline_ms", "observed_ms", "via")
GAP = ("node", "opened_ms", "closed_ms", "cause", "missed", "recovered", "ambiguous")
FILLED = ("filled", "excess")
"""Of the record of a gap that was filled."""
_ID = re.compile("[0-9a-f]{32}")


def fields_of(letter: DeadLetter) -> list[Argument]:
    """The entry: field, value, field, value, and so on."""
    event = letter.event
    fields: list[Argument] = ["id", event.id, "reason", letter.reason]
    names: Sequence[str] = EXPIRATION
    if isinstance(event, GapRecord):
        names = GAP if event.filled is None else (*GAP, *FILLED)
    for name in names:
        value = getattr(event, name)
        fields += (name, "" if value is None else value)
    return fields


def letter_of(fields: Mapping[bytes, bytes]) -> DeadLetter | None:
    """The inverse; None for what somebody else wrote."""
    try:
        event_id, reason = fields[b"id"].decode(), fields[b"reason"].decode()
        event = _gap(event_id, fields) if b"node" in fields else _expiration(event_id, fields)
    except (KeyError, ValueError):  # UnicodeDecodeError is one
        return None
    return DeadLetter(event, reason) if _ID.fullmatch(event_id) else None


def whole(value: bytes | int) -> int:
    """A time or a count, as Redis can hold it. Raises ValueError."""
    number = int(value)
    if not 0 <= number < 1 << 63:
        raise ValueError("not a number that Redis can hold")
    return number


def _expiration(event_id: str, fields: Mapping[bytes, bytes]) -> Event:
    key, deadline, observed, via = (fields[name.encode()] for name in EXPIRATION)
    return Expiration(event_id, key, whole(deadline) if deadline else None, whole(observed), Via(via.decode()))


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
