"""The keyspace of a simulated Redis: keys, deadlines, and what is notified when they change.

A key expires when `now > deadline`, when it is looked at or by the active cycle: not before, and not by itself. It is
notified as `expired` then, unless a write of ours is what ends it.
"""

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from tests.simulation.redis.values import CommandError, Hash, SortedSet, Stream, Value, clone

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
CLASSES = "g$lshzxetdnm"
"""Flags of `notify-keyspace-events`: which events, besides K and E, which say on which channels."""
_ALL = "g$lshzxetd"
V = TypeVar("V", bytes, Hash, SortedSet, Stream)


Held = tuple[dict[bytes, Value], dict[bytes, int]]
"""What a database holds: values and deadlines, by key."""


class Database:
    """One database."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.values: dict[bytes, Value] = {}
        self.deadlines: dict[bytes, int] = {}
        self.timed = False
        """Whether a field of any hash has ever had a deadline."""

    def snapshot(self) -> Held:
        """What it holds now."""
        return {key: clone(value) for key, value in self.values.items()}, dict(self.deadlines)

    def restore(self, held: Held) -> None:
        """Hold what it held then."""
        self.values = {key: clone(value) for key, value in held[0].items()}
        self.deadlines = dict(held[1])


class Keyspace:
    """All databases of one server, and its clock as commands see it."""

    DATABASES = 16

    def __init__(self, clock_us: Callable[[], int], publish: Callable[[bytes, bytes], object]) -> None:
        """`clock_us`: the machine's. `publish`: to a channel."""
        self.databases = [Database(number) for number in range(self.DATABASES)]
        self.flags = ""
        self.expiry_paused = False
        """CLIENT PAUSE: what is past its deadline looks gone, and is not deleted."""
        self.replica = False
        """Likewise."""
        self.expired_keys = 0
        self.evicted_keys = 0
        self.on_end: Callable[[Database, bytes, str], object] = lambda _database, _key, _how: None
        """Called before a key is gone, with the name of the event."""
        self.on_write: Callable[[Database, bytes], object] = lambda _database, _key: None
        """Called after a key was changed, or is gone."""
        self.invalidate: Callable[[bytes], object] = lambda _key: None
        """Called where clients that have read the key are to be told of that: mostly before it is notified."""
        self.invalidate_all: Callable[[], object] = lambda: None
        """Likewise, of a whole database."""
        self.tell = publish
        """Where notifications go: a channel, and a message."""
        self._clock_us = clock_us
        self._frozen_us: int | None = None

    # Time.

    @property
    def now_us(self) -> int:
        """In a script it stands still."""
        return self._clock_us() if self._frozen_us is None else self._frozen_us

    @property
    def now_ms(self) -> int:
        """Likewise."""
        return self.now_us // 1000

    def freeze(self) -> None:
        """A script, or a command, begins."""
        self._frozen_us = self._clock_us()

    def thaw(self) -> None:
        """It is over."""
        self._frozen_us = None

    # Notifications.

    def notify(self, kind: str, event: str, key: bytes, database: Database) -> None:
        """Tell subscribers, if they want that."""
        flags = self.flags
        if kind not in flags and not ("A" in flags and kind in _ALL):
            return
        if "K" in flags:
            self.tell(b"__keyspace@%d__:%b" % (database.number, key), event.encode())
        if "E" in flags:
            self.tell(b"__keyevent@%d__:%b" % (database.number, event.encode()), key)

    # Keys.

    def alive(self, database: Database, key: bytes) -> bool:
        """Whether it is there; what is past its deadline is expired by that."""
        if key not in database.values:
            return False
        deadline = database.deadlines.get(key)
        if deadline is None or self.now_ms <= deadline:
            return True
        if not self.expiry_paused and not self.replica:
            self.expire(database, key)
        return False

    def expire(self, database: Database, key: bytes, *, written: bool = False) -> None:
        """It is past its deadline. `written`: by that command."""
        self.on_end(database, key, "expired")
        self._remove(database, key)
        self.expired_keys += 1
        if written:
            self.invalidate(key)
        self.notify("x", "expired", key, database)
        self.invalidate(key)

    def evict(self, database: Database, key: bytes) -> None:
        """There is no memory left for it."""
        self.on_end(database, key, "evicted")
        self._remove(database, key)
        self.evicted_keys += 1
        self.invalidate(key)
        self.notify("e", "evicted", key, database)

    def delete(self, database: Database, key: bytes, event: str = "del") -> bool:
        """Whether it was there."""
        if not self.alive(database, key):
            return False
        self.on_end(database, key, event)
        self._remove(database, key)
        self.invalidate(key)
        self.notify("g", event, key, database)
        return True

    def drop(self, database: Database, key: bytes) -> None:
        """Without a word, as what is overwritten."""
        self.on_end(database, key, "")
        self._remove(database, key)

    def _remove(self, database: Database, key: bytes) -> None:
        del database.values[key]
        database.deadlines.pop(key, None)
        self.on_write(database, key)

    def restore(self, held: Sequence[Held]) -> None:
        """Hold what the databases held then, and nothing else. Nothing is notified."""
        for number, database in enumerate(self.databases):
            database.restore(held[number] if number < len(held) else ({}, {}))

    def cycle(self, rng: random.Random, share: float) -> None:
        """What the active expiry does now and then: some of what is past its deadline goes."""
        if self.expiry_paused or self.replica:
            return
        for database in self.databases:
            if database.timed:
                self._cycle_fields(database, rng, share)
            now = self.now_ms
            for key in [key for key, deadline in database.deadlines.items() if now > deadline and rng.random() < share]:
                self.expire(database, key)

    def _cycle_fields(self, database: Database, rng: random.Random, share: float) -> None:
        """Likewise of fields: not always all that a hash has of them."""
        for key, value in list(database.values.items()):
            names = self.lapsed(value) if isinstance(value, Hash) and self.alive(database, key) else []
            if isinstance(value, Hash) and names and rng.random() < share:
                self.expire_fields(database, key, value, names[: rng.choice([None, None, 1])])

    def lapsed(self, found: Hash) -> list[bytes]:
        """Its fields that are past their deadlines; the first deadline first."""
        now = self.now_ms
        past = [name for name, deadline in found.deadlines.items() if deadline < now]
        return sorted(past, key=found.deadlines.__getitem__)

    def expire_fields(self, database: Database, key: bytes, found: Hash, names: Sequence[bytes]) -> None:
        """They are past their deadlines, and go now."""
        self.drop_fields(database, key, found, names, "hexpired")

    def drop_fields(self, database: Database, key: bytes, found: Hash, names: Sequence[bytes], event: str) -> None:
        """They go; the hash with them, if nothing is left of it."""
        for name in names:
            found.drop(name)
        self.changed(database, key)
        self.notify("h", event, key, database)
        if not found:
            self.delete(database, key)

    def get(self, database: Database, key: bytes, kind: type[V]) -> V | None:
        """The value; None where it is not there. Raises CommandError where it is of another kind."""
        if not self.alive(database, key):
            return None
        value = database.values[key]
        if not isinstance(value, kind):
            raise CommandError(WRONG_TYPE)
        return value

    def make(self, database: Database, key: bytes, kind: type[V]) -> V:
        """The value, a new one where there was none."""
        value = self.get(database, key, kind)
        if value is None:
            value = kind()
            database.values[key] = value
        return value

    def changed(self, database: Database, key: bytes) -> None:
        """It was changed in place."""
        self.on_write(database, key)
        self.invalidate(key)
