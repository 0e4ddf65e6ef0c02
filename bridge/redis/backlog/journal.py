"""The journal of a gap: what a part of the replication stream says about the lives of keys, in its order.

The part begins before an anchor's mark and ends with another mark of the bridge's own. An expiration looks like a
deletion of one key, with one of two words; a user's deletion may look the same. `verdict.py` decides which is which.
Pure; bounded by `limits`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from bridge.limits import BacklogLimits
from bridge.redis.backlog.effects import Command, Effect, deadlines, effect, ending, replaced
from bridge.redis.protocol.anchor import Anchor
from bridge.redis.protocol.own_keys import Names, is_of_a_bridge

Key = tuple[int, bytes]
"""Database, name."""
_OF_ONE_KEY = 2
"""Words of the deletion of one key."""


class Unfillable(Exception):
    """The gap cannot be filled; the message says why. It holds nothing of what is in the stream."""


class Happened(Enum):
    """What happened to a key."""

    DELETED = auto()
    """By a user's command."""
    ENDED = auto()
    """By a command that is either a user's, or stands for an expiration."""
    SET = auto()
    """Present, with another deadline or none."""
    MARK = auto()
    """A mark of the ledger's came by: its name."""
    ANNOUNCED = auto()
    """A batch has announced something: the key is the payload."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A deadline that was not set in this part: that of a key of this name, as it was before."""

    key: Key


Deadline = int | Origin | None
"""In ms; None: no TTL."""


@dataclass(slots=True)
class Entry:
    """One entry of the journal."""

    what: Happened
    key: Key
    deadline: Deadline = None
    """Of ENDED: what it had. Of SET: what it has."""


@dataclass(slots=True)
class Journal:
    """See the module."""

    names: Names
    anchor: Anchor
    end: bytes
    """The mark that it ends with."""
    limits: BacklogLimits
    entries: list[Entry] = field(default_factory=list)
    claims: list[bytes] = field(default_factory=list)
    """What the former epoch has claimed meanwhile, packed as in its outbox."""
    _deadlines: dict[Key, Deadline] = field(default_factory=dict)
    _emptied: dict[Key, None] = field(default_factory=dict)
    """Keys that may be gone, because the last thing that happened to them was the removal of a value."""
    _db: int = 0
    _begun: bool = False

    def __post_init__(self) -> None:
        self._db = self.names.db  # true at the mark; from what comes before, only deadlines matter

    def take(self, command: Command) -> bool:
        """Take the next command. Returns whether it is the last one. Raises Unfillable."""
        try:
            return self._take(command)
        except (ValueError, IndexError) as error:
            raise Unfillable("a command of the stream cannot be read") from error

    def complete(self) -> None:
        """The last command was taken."""
        for key in self._emptied:
            self.entries += (Entry(Happened.DELETED, key), Entry(Happened.SET, key))
        self._emptied.clear()

    def _take(self, command: Command) -> bool:
        name = command[0].upper()
        what = effect(name)
        if what is Effect.ENDS:
            return self._ended(command)
        if what is None:
            raise Unfillable(f"the stream has a command that is not known here: {_shown(name)}")
        handlers: dict[Effect, Callable[[bytes, Command], None]] = {
            Effect.NONE: self._heed,
            Effect.SETS: self._sets,
            Effect.MAY_END: self._may_end_some,
            Effect.REPLACES: self._replaced,
            Effect.STORES: self._replaced,
            Effect.MOVES: self._moved,
            Effect.SELECTS: self._selected,
            Effect.DESTROYS: self._destroyed,
        }
        handlers[what](name, command)
        return False

    def _selected(self, _: bytes, command: Command) -> None:
        self._db = int(command[1])

    def _destroyed(self, name: bytes, _: Command) -> None:
        if self._begun:
            raise Unfillable(f"there was a {_shown(name)} within it")

    def _sets(self, name: bytes, command: Command) -> None:
        found = deadlines(name, command)
        if found is None:
            raise Unfillable(f"a {_shown(name)} of the stream has a form that is not known here")
        for key, deadline in found:
            self._set((self._db, key), deadline)

    def _may_end_some(self, name: bytes, command: Command) -> None:
        for key in ending(name, command):
            self._may_end((self._db, key))

    def _replaced(self, name: bytes, command: Command) -> None:
        for key in replaced(name, command):
            self._set((self._db, key), None)
            self._may_end((self._db, key), always=True)

    def _heed(self, name: bytes, command: Command) -> None:
        """A command that ends no key, and changes no deadline: it may be the bridge's own."""
        if not self._begun:
            return
        if name in {b"PUBLISH", b"SPUBLISH"}:
            if command[1] == self.names.announcements:
                self._enter(Entry(Happened.ANNOUNCED, (self._db, command[2])))
        elif name == b"XADD" and command[1] == self.names.outbox and self._db == self.names.db:
            self.claims += [
                value for field_, value in zip(command[3::2], command[4::2], strict=True) if field_ == b"claims"
            ]

    def _ended(self, command: Command) -> bool:
        """One or more keys were deleted, or one has expired."""
        for name in command[1:]:
            key = (self._db, name)
            if key[0] == self.names.db and name.startswith(self.names.mark_prefix):
                if not self._begun:
                    self._begun = name == self.anchor.mark
                    self._db = self.names.db
                self._enter(Entry(Happened.MARK, key))
                if self._begun and name == self.end:
                    return True
            elif self._begun:
                self._require_not_vital(key)
                single = len(command) == _OF_ONE_KEY and command[0] == self.anchor.word
                deadline = self._deadlines.get(key, Origin(key))
                self._enter(Entry(Happened.ENDED if single else Happened.DELETED, key, deadline))
            self._deadlines[key] = None
            self._emptied.pop(key, None)
        return False

    def _set(self, key: Key, deadline: Deadline) -> None:
        self._deadlines[key] = deadline
        self._emptied.pop(key, None)
        self._enter(Entry(Happened.SET, key, deadline))

    def _may_end(self, key: Key, *, always: bool = False) -> None:
        own = key[1].startswith(self.names.own_prefix)
        if self._begun and not own and (always or self._deadlines.get(key, Origin(key)) is not None):
            self._emptied[key] = None

    def _moved(self, name: bytes, command: Command) -> None:
        source, words = (self._db, command[1]), [word.upper() for word in command[3:]]
        if name == b"MOVE":
            target = (int(command[2]), command[1])
        elif name == b"COPY" and b"DB" in words:
            target = (int(words[words.index(b"DB") + 1]), command[2])
        else:
            target = (self._db, command[2])
        deadline = self._deadlines.get(source, Origin(source))
        if name != b"COPY":
            self._require_not_vital(source)
            self._deadlines[source] = None
            self._emptied.pop(source, None)
            self._enter(Entry(Happened.DELETED, source))
        self._require_not_vital(target)
        self._set(target, deadline)

    def _require_not_vital(self, key: Key) -> None:
        names = self.names
        if self._begun and key[0] == names.db and key[1] in {names.deadlines, names.lease, names.outbox}:
            raise Unfillable("one of the bridge's own keys was deleted or renamed")

    def _enter(self, entry: Entry) -> None:
        if not self._begun or (entry.what in {Happened.SET, Happened.DELETED} and is_of_a_bridge(entry.key[1])):
            return
        if len(self.entries) >= self.limits.events:
            raise Unfillable(f"more than {self.limits.events} things have happened in it")
        self.entries.append(entry)


def _shown(name: bytes) -> str:
    """The name of a command, for people: it comes from outside."""
    return name[:40].decode("ascii", "backslashreplace")
