"""Fields of hashes: what a notification means for the field ledger. Pure: no I/O, no clock.

The server says that fields of a hash have expired, but mostly not which ones. So a hint is only a reason to read the
hash anew (`lua/fields.lua`), and waiting hints of the same hash are merged. What matters of them is kept: that a field
expired, or that one was deleted. Where the server names fields, their names are kept as well.

A field that is gone and due, and not proven to have expired, is read again when the mark that followed the reading is
back. By then everything that may have ended it has been heard.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from bridge.redis.protocol.notifications import OF_FIELDS, Kind
from bridge.redis.protocol.own_keys import Names, is_of_a_bridge

KNOWN, TIMED, EXPIRED, DELETED, LOST, WAITED = b"k", b"f", b"e", b"d", b"l", b"m"
"""Why a hash is read, in the letters of `fields.lua`. KNOWN: only if it is in the ledger."""

_LENGTH_DIGITS = 10
"""A length has no more digits than that."""
_OF_THE_KEY_ALONE = (b":expire", b":persist")
_WHY = {
    Kind.EXPIRED: KNOWN + DELETED,
    Kind.GONE: KNOWN + DELETED,
    Kind.APPEARED: DELETED,  # it may be in the place of another hash, whose fields are gone
    Kind.FIELD_EXPIRED: TIMED + EXPIRED,
    Kind.FIELD_TIMED: TIMED,
    Kind.FIELD_SET: KNOWN,
    Kind.FIELD_DELETED: KNOWN + DELETED,
    Kind.NAMED_EXPIRED: TIMED,
    Kind.NAMED_DELETED: KNOWN,
}


def named(payload: bytes) -> tuple[bytes, list[bytes]] | None:
    """Key and fields of `<length>:<key>|<length>:<field>,<length>:<field>…`; None where it is of another form."""
    key, at = _counted(payload, 0)
    if key is None or payload[at : at + 1] != b"|":
        return None
    fields = list[bytes]()
    while at < len(payload):
        name, at = _counted(payload, at + 1)
        if name is None or payload[at : at + 1] not in {b"", b","}:
            return None
        fields.append(name)
    return key, fields


def _counted(text: bytes, at: int) -> tuple[bytes | None, int]:
    """The text that begins there, and where it ends. Copies only that: one command may end very many fields."""
    colon = text.find(b":", at, at + _LENGTH_DIGITS + 1)
    digits = text[at:colon] if colon > at else b""
    if not digits.isdigit():
        return None, at
    end = colon + 1 + int(digits)
    return (text[colon + 1 : end], end) if end <= len(text) else (None, at)


@dataclass(slots=True)
class Reasons:
    """Why one hash has to be read."""

    why: bytes
    """Letters from KNOWN to WAITED, each once."""
    expired: list[bytes] = field(default_factory=list)
    """Fields that the server has named."""
    deleted: list[bytes] = field(default_factory=list)

    def add(self, why: bytes, expired: Sequence[bytes] = (), deleted: Sequence[bytes] = ()) -> None:
        """Add a reason. KNOWN holds only if all reasons have it."""
        if KNOWN not in self.why or KNOWN not in why:
            self.why, why = self.why.replace(KNOWN, b""), why.replace(KNOWN, b"")
        self.why = bytes(dict.fromkeys(self.why + why))
        self.expired += expired
        self.deleted += deleted

    def names(self) -> Mapping[str, list[bytes]] | bool:
        """As `fields.lua` takes it."""
        return {"expired": self.expired, "deleted": self.deleted} if self.expired or self.deleted else False


Hint = tuple[bytes, Reasons]
"""A hash, and why it has to be read."""


class FieldHints:
    """Hints of hashes that one epoch has heard, and not handled."""

    def __init__(self, names: Names, matches: Callable[[bytes], object] | None = None) -> None:
        """`matches`: whether a key may be one of the ledger's hashes; None where any may."""
        self._matches = matches
        self._own_prefix, self._ledger, self._index_of = names.own_prefix, names.fields, names.field_prefix
        self.emptied = False
        """Whether the end of the field ledger was notified: its last hash was removed, or it was deleted."""
        self.lost = False
        """Whether hints were lost, and the hashes have not been read since. Any hint may have been of a deletion."""
        self.bytes = 0
        """Bytes of the names of hashes that have to be read."""
        self._pending: dict[bytes, Reasons] = {}
        self._waiting: dict[bytes, dict[bytes, Reasons]] = {}
        """By awaited mark: hashes, and everything that was heard of them."""
        self._mark_of: dict[bytes, bytes] = {}
        """By hash: the mark for which it waits."""

    def __len__(self) -> int:
        """How many hashes have to be read."""
        return len(self._pending)

    @property
    def waiting(self) -> bool:
        """Whether any hash waits for a mark."""
        return bool(self._waiting)

    def notified(self, channel: bytes, kind: Kind, key: bytes) -> bool:
        """A notification about a hash, or about any key. Returns whether it says nothing about the key itself."""
        of_fields = kind in OF_FIELDS
        why, fields = _WHY.get(kind), list[bytes]()
        if kind in {Kind.NAMED_EXPIRED, Kind.NAMED_DELETED}:
            if (found := named(key)) is None:
                return True
            key, fields = found
        if kind is Kind.GONE and key.startswith(self._own_prefix):
            self._own_ended(key)
        elif why is not None and not channel.endswith(_OF_THE_KEY_ALONE) and self.matches(key):
            expired = kind is Kind.NAMED_EXPIRED
            self.add(key, why, fields if expired else (), () if expired else fields)
        return of_fields

    def _own_ended(self, key: bytes) -> None:
        if key == self._ledger:
            self.emptied = True
        elif key.startswith(self._index_of):  # an index was evicted: its hash has to be read again
            self.add(key.removeprefix(self._index_of))

    def matches(self, key: bytes) -> bool:
        """Whether it may be one of the ledger's hashes."""
        if key.startswith(self._own_prefix) or is_of_a_bridge(key):  # of another namespace
            return False
        return self._matches is None or bool(self._matches(key))

    def unread(self) -> set[bytes]:
        """The hashes that have to be read, now or when a mark is back."""
        return {*self._pending, *self._mark_of}

    def add(self, key: bytes, why: bytes = b"", expired: Sequence[bytes] = (), deleted: Sequence[bytes] = ()) -> None:
        """Read the hash anew, for this reason."""
        mark = self._mark_of.get(key)
        into = self._pending if mark is None else self._waiting[mark]
        if key in into:
            into[key].add(why, expired, deleted)
        else:
            into[key] = Reasons(why, [*expired], [*deleted])
            self.bytes += len(key) if mark is None else 0

    def take(self, count: int, most_bytes: int) -> list[Hint]:
        """At most `count` hashes to read, and why. Their names have at most that many bytes, or it is one hash."""
        some = list[Hint]()
        for hint in islice(self._pending.items(), count):
            most_bytes -= len(hint[0])
            if some and most_bytes < 0:
                break
            some.append(hint)
        for key, _ in some:
            self._drop(key)
        return some

    def give_back(self, hints: Iterable[Hint]) -> None:
        """Put hints back that were taken, and not read."""
        for key, reasons in hints:
            self.add(key, reasons.why, reasons.expired, reasons.deleted)

    def go_on(self, hashes: Collection[bytes], hints: Iterable[Hint]) -> None:
        """Read these hashes again: not all was claimed that has expired. `hints`: why they were read.

        Those that were read because they are due still are. That a field expired, or that a mark is back, says nothing
        about fields that are deleted from now on.
        """
        for key, reasons in hints:
            if key in hashes:
                why = reasons.why.replace(EXPIRED, b"").replace(WAITED, b"")
                self.add(key, why, reasons.expired, reasons.deleted)

    def wait(self, mark: bytes, hashes: Iterable[bytes], hints: Iterable[Hint]) -> None:
        """Read these hashes again when the mark is back. `hints`: why they were read."""
        former, waiting = dict(hints), dict[bytes, Reasons]()
        for key in hashes:
            waiting[key] = former.get(key) or Reasons(b"")
            waiting[key].add(WAITED + LOST if self.lost else WAITED)
            if (heard := self._pending.get(key)) is not None:
                waiting[key].add(heard.why, heard.expired, heard.deleted)
                self._drop(key)
            self._mark_of[key] = mark
        if waiting:
            self._waiting[mark] = waiting

    def returned(self, mark: bytes) -> None:
        """A mark is back."""
        for key, reasons in self._waiting.pop(mark, {}).items():
            del self._mark_of[key]
            self.add(key, reasons.why, reasons.expired, reasons.deleted)

    def clear(self) -> None:
        """Forget what has to be read: all hashes will be gone through."""
        self._pending.clear()
        self.bytes, self.lost = 0, True

    def _drop(self, key: bytes) -> None:
        del self._pending[key]
        self.bytes -= len(key)
