"""Users who live with fields of hashes: they set them, put them off, take them away, and let them expire.

Like the others (`writer.py`) they reach the server at once, most often about a deadline.
"""

import asyncio
import random
from dataclasses import dataclass

from tests.simulation.redis.server import Server
from tests.simulation.redis.values import Failure, Hash

LASTING_MS = 100_000
"""How long a field lives that outlives the faults."""


@dataclass(frozen=True, slots=True)
class Fielding:
    """How a seed's users live with fields."""

    hashes: int = 2
    fields: int = 3
    """Of each hash, mostly."""
    pause: float = 0.1
    """Seconds between acts, on average."""
    near: float = 0.6
    """How often they wait for a deadline instead."""
    early_ms: float = 3.0
    """How long before it they act, on average."""
    burst: float = 0.1
    """How often one act follows at once."""
    ttl: float = 0.3
    """Seconds, on average."""
    same: float = 0.3
    """How often a deadline is one that there was before."""
    provoked: float = 0.2
    """How often they act at the very moment at which a script of the bridge has run."""
    most: int = 500
    """Fields of a hash that the bridge reads."""
    read: int = 500
    """And at once."""


class FieldWriter:
    """See the module."""

    def __init__(self, server: Server, fielding: Fielding, seed: int) -> None:
        self._server = server
        self._fielding = fielding
        self._rng = random.Random(f"fields of {seed}, written")
        self._hashes = [b"user:h%d" % number for number in range(fielding.hashes)]
        self._deadlines: list[int] = []
        self._values = self._names = 0
        self._resting = False

    @property
    def _now(self) -> int:
        return self._server.keyspace.now_ms

    async def work(self) -> None:
        """Until cancelled."""
        rng, habits = self._rng, self._fielding
        while True:
            key = None
            if rng.random() < habits.burst:
                await asyncio.sleep(0)
            elif rng.random() < habits.near and (ahead := self._ahead()):
                deadline, key = rng.choice(ahead)
                moment = deadline - rng.choice([-2, -1, -1, 0, 0, 1, int(rng.expovariate(1 / habits.early_ms))])
                await asyncio.sleep(max(moment - self._now, 0) / 1000)
            else:
                await asyncio.sleep(rng.expovariate(1 / habits.pause))
            self.act(key if rng.random() < 0.8 else None)

    def _ahead(self) -> list[tuple[int, bytes]]:
        """Deadlines that come soon, and their hashes."""
        now = self._now
        return [
            (at, key) for key, found in self._timed() for at in found.deadlines.values() if now - 5 <= at < now + 1500
        ]

    def _timed(self) -> list[tuple[bytes, Hash]]:
        values = self._server.keyspace.databases[0].values
        hashes = [(key, values.get(key)) for key in self._hashes]
        return [(key, found) for key, found in hashes if isinstance(found, Hash) and found.deadlines]

    def provoked(self, script: str) -> None:
        """A script of the bridge has run."""
        if script == "fields.lua" and not self._resting and self._rng.random() < self._fielding.provoked:
            self.act(None)

    def rest(self) -> None:
        """Do nothing any more."""
        self._resting = True

    def settle(self) -> None:
        """Let every field that has a deadline reach it soon."""
        for key, found in self._timed():
            for name in list(found.deadlines):
                self._server.user("HPEXPIRE", key, self._rng.randrange(50, 1500), "FIELDS", 1, name)

    def act(self, key: bytes | None) -> None:
        """One command, or some that belong together."""
        chosen = self._rng.choices(
            [
                self._set, self._again, self._put_off, self._shorten, self._remove, self._persist, self._past,
                self._delete, self._end, self._rename, self._replace, self._look, self._flash, self._lasting,
                self._grow, self._crowd,
            ],
            weights=[30, 8, 10, 8, 14, 4, 3, 4, 4, 6, 6, 6, 4, 4, 3, 8],
        )[0]  # fmt: skip
        chosen(key or self._rng.choice(self._hashes))

    def _deadline(self) -> int:
        rng = self._rng
        if self._deadlines and rng.random() < self._fielding.same:
            chosen = rng.choice(self._deadlines[-8:])
            if chosen > self._now:
                return chosen
        chosen = self._now + 1 + int(min(rng.expovariate(1 / self._fielding.ttl), 8.0) * 1000)
        self._deadlines.append(chosen)
        return chosen

    def _field(self) -> bytes:
        return b"user:f%d" % self._rng.randrange(self._fielding.fields)

    def _any(self, key: bytes) -> bytes:
        """One that has a deadline, if there is any."""
        found = self._server.keyspace.databases[0].values.get(key)
        timed = list(found.deadlines) if isinstance(found, Hash) else []
        return self._rng.choice(timed) if timed else self._field()

    def _put(self, key: bytes, *names: bytes) -> None:
        self._values += 1
        words = [word for name in names for word in (name, b"worth:%d" % self._values)]
        if isinstance(self._server.user("HSET", key, *words), Failure):  # it is another type of value
            self._server.user("DEL", key)
            self._server.user("HSET", key, *words)

    def _time(self, key: bytes, deadline: int, *names: bytes) -> None:
        self._server.user("HPEXPIREAT", key, deadline, "FIELDS", len(names), *names)

    def _set(self, key: bytes) -> None:
        name = self._field()
        self._put(key, name)
        self._time(key, self._deadline(), name)

    def _crowd(self, key: bytes) -> None:
        """Several with one deadline."""
        names = [b"user:f%d" % number for number in range(self._fielding.fields)]
        self._put(key, *names)
        self._time(key, self._deadline(), *names)

    def _lasting(self, key: bytes) -> None:
        name = self._field()
        self._put(key, name)
        self._time(key, self._now + LASTING_MS, name)

    def _again(self, key: bytes) -> None:
        """Set again: it has no deadline then, or the one that it had."""
        name = self._any(key)
        found = self._server.keyspace.databases[0].values.get(key)
        deadline = found.deadlines.get(name) if isinstance(found, Hash) else None
        self._put(key, name)
        if deadline is not None and deadline > self._now and self._rng.random() < 0.4:
            self._time(key, deadline, name)

    def _put_off(self, key: bytes) -> None:
        self._time(key, self._now + self._rng.randrange(20, 2000), self._any(key))

    def _shorten(self, key: bytes) -> None:
        self._time(key, self._now + self._rng.randrange(1, 40), self._any(key))

    def _remove(self, key: bytes) -> None:
        self._server.user("HDEL", key, self._any(key))

    def _persist(self, key: bytes) -> None:
        self._server.user("HPERSIST", key, "FIELDS", 1, self._any(key))

    def _past(self, key: bytes) -> None:
        self._server.user("HPEXPIRE", key, 0, "FIELDS", 1, self._any(key))

    def _delete(self, key: bytes) -> None:
        self._server.user("DEL", key)

    def _end(self, key: bytes) -> None:
        """The whole hash expires, often just before one of its fields."""
        ahead = [at for at, owner in self._ahead() if owner == key and at > self._now + 1]
        if ahead and self._rng.random() < 0.7:
            self._server.user("PEXPIREAT", key, self._rng.choice(ahead) - self._rng.randrange(4))
        else:
            self._server.user("PEXPIRE", key, self._rng.randrange(1, 300))

    def _rename(self, key: bytes) -> None:
        """It becomes another one, or another one takes its place."""
        other = self._rng.choice(self._hashes)
        names = (key, other) if self._rng.random() < 0.4 else (other, key)
        self._server.user("RENAME", *names)

    def _replace(self, key: bytes) -> None:
        """By a string, or by another hash."""
        if self._rng.random() < 0.5:
            self._server.user("SET", key, b"worth:other")
        else:
            self._put(b"user:hnew", b"user:new")
            self._server.user("RENAME", b"user:hnew", key)

    def _look(self, key: bytes) -> None:
        found = self._server.keyspace.databases[0].values.get(key)
        for name in list(found) if isinstance(found, Hash) else []:
            self._server.user("HGET", key, name)

    def _flash(self, key: bytes) -> None:
        """Set, and deleted at once."""
        name = self._field()
        self._put(key, name)
        self._time(key, self._deadline(), name)
        self._server.user("HDEL", key, name)

    def _grow(self, key: bytes) -> None:
        """So many fields that it may be too large; or some of them go."""
        many = [b"user:m%d" % number for number in range(min(self._fielding.most, 20))]
        if self._rng.random() < 0.4:
            self._put(key, *many)
        else:
            self._server.user("HDEL", key, *many)
