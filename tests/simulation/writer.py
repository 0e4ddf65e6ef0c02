"""The users of the simulated Redis: they set, extend, persist, delete, rename, and look, at the worst moments.

They reach the server at once, so that the seed, and not a network, decides what they meet: often the very millisecond
of a deadline, or a deadline that a key has had before.
"""

import asyncio
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tests.simulation.book import Book
from tests.simulation.redis.server import Server

SECRET = b"worth:"
"""How each value begins."""
BACK = 0.7
"""How often what provokes them brings a key back that was just seen gone."""


@dataclass(frozen=True, slots=True)
class Habits:
    """How a seed's users behave."""

    keys: int = 4
    pause: float = 0.1
    """Seconds between commands, on average."""
    near: float = 0.5
    """How often they wait for a deadline instead."""
    burst: float = 0.1
    """How often one command follows at once."""
    ttl: float = 0.3
    """Seconds, on average."""
    same: float = 0.2
    """How often a deadline is one that there was before."""
    crowd: float = 0.0
    """How often many keys are set together."""
    provoked: float = 0.0
    """How often they act at the very moment at which a script of the bridge has run."""
    once: float = 0.0
    """How often a key is set that is not set again."""
    together: float = 0.0
    """How often what is done to a key is done to all of them."""
    lasting: float = 1.0
    """Seconds that such a key lives, on average, if nobody does anything to it."""


@dataclass(frozen=True, slots=True)
class Rewriting:
    """How a seed's users write values, where these go along."""

    pause: float = 0.1
    """Seconds between such writes, on average."""
    near: float = 0.8
    """How often they wait for a deadline instead."""
    before_ms: float = 20.0
    """How long before it they write, on average."""
    provoked: float = 0.2
    """How often they write at the very moment at which values were captured, or claimed."""


class Writer:
    """See the module."""

    def __init__(self, server: Server, book: Book, rng: random.Random, habits: Habits, seed: int = 0) -> None:
        self._server = server
        self._book = book
        self._rng = rng
        self._rewriting_rng = random.Random(f"values of {seed}, written")
        self._habits = habits
        self.keys = [b"user:%d" % number for number in range(habits.keys)]
        self._deadlines: list[int] = []
        self._crowds = self._onces = self._values = 0
        self._resting = False

    def _value(self) -> bytes:
        """Another one than all before."""
        self._values += 1
        return SECRET + b"%d" % self._values

    @property
    def _now(self) -> int:
        return self._server.keyspace.now_ms

    async def work(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._pause())
            self.act()

    def _pause(self) -> float:
        rng, habits = self._rng, self._habits
        if rng.random() < habits.burst:
            return 0.0
        if rng.random() < habits.near and (ahead := self._ahead()):
            return max(rng.choice(ahead) - self._now + rng.choice((-2, -1, 0, 0, 1, 1, 2, 3, 5)), 0) / 1000
        return rng.expovariate(1 / habits.pause)

    def _ahead(self) -> list[int]:
        """Deadlines that come soon."""
        now = self._now
        return [at for at in self._server.keyspace.databases[0].deadlines.values() if now - 5 <= at < now + 1500]

    def _ttl(self) -> int:
        """In ms."""
        return 1 + int(min(self._rng.expovariate(1 / self._habits.ttl), 8.0) * 1000)

    def _deadline(self) -> int:
        """One that there was before, or another one."""
        rng = self._rng
        if self._deadlines and rng.random() < self._habits.same:
            chosen = rng.choice(self._deadlines[-8:])
            if chosen > self._now - 20:
                return chosen
        chosen = self._now + self._ttl()
        self._deadlines.append(chosen)
        return chosen

    def provoked(self, gone: Sequence[bytes]) -> None:
        """A script of the bridge has run, and has seen that these keys were gone."""
        if self._rng.random() < self._habits.provoked and not self._resting:
            back = [key for key in gone if key in self.keys]
            if back and self._rng.random() < BACK:
                self._rng.choice([self._set, self._flash, self._flash])(self._rng.choice(back))
            else:
                self.act()

    # Values.

    async def rewrite(self, rewriting: "Rewriting") -> None:
        """Until cancelled: write values that keep their deadlines, mostly just before these."""
        rng = self._rewriting_rng
        while True:
            ahead = [at for at in self._ahead() if at > self._now]
            if ahead and rng.random() < rewriting.near:
                await asyncio.sleep(
                    max(rng.choice(ahead) - rng.expovariate(1 / rewriting.before_ms) - self._now, 0) / 1000
                )
            else:
                await asyncio.sleep(rng.expovariate(1 / rewriting.pause))
            self.overwrite()

    def captured(self, script: str, rewriting: "Rewriting") -> None:
        """Values of users' keys were read, or their claims made."""
        provoking = script in {"capture.lua", "apply.lua"} and not self._resting
        if provoking and self._rewriting_rng.random() < rewriting.provoked:
            self.overwrite()

    def overwrite(self) -> None:
        """One value, at once."""
        rng = self._rewriting_rng
        keys = sorted(key for key in self._ending() if key.startswith(b"user:"))
        if not keys:
            return
        key = rng.choice(keys)
        if rng.random() < 0.7:
            self._server.user("SET", key, self._value(), "KEEPTTL", "XX")
        else:
            self._server.user("APPEND", key, b"+")

    def rest(self) -> None:
        """Do nothing any more."""
        self._resting = True

    def act(self) -> None:
        """One command, or some that belong together."""
        rng, key = self._rng, self._rng.choice(self.keys)
        if rng.random() < self._habits.crowd:
            self._crowd()
            return
        if rng.random() < self._habits.once:
            self._once()
            return
        chosen = rng.choices(
            [
                self._set, self._set, self._extend, self._persist, self._plain, self._delete, self._again, self._rename,
                self._copy, self._look, self._other, self._shorten, self._flash,
            ],
            weights=[30, 10, 12, 4, 5, 7, 8, 4, 3, 6, 8, 6, 5],
        )[0]  # fmt: skip
        for one in self.keys if rng.random() < self._habits.together else [key]:
            chosen(one)

    def settle(self) -> None:
        """Let everything that has a deadline reach it soon."""
        for key in list(self._ending()):
            if key.startswith(b"user:"):
                self._server.user("PEXPIRE", key, self._rng.randrange(50, 1500))

    def _set(self, key: bytes) -> None:
        if self._rng.random() < 0.5:
            self._server.user("SET", key, self._value(), "PXAT", max(self._deadline(), 1))
        else:
            self._server.user("SET", key, self._value(), "PX", self._ttl())

    def _extend(self, key: bytes) -> None:
        self._server.user("PEXPIREAT", key, self._deadline())

    def _persist(self, key: bytes) -> None:
        self._server.user("PERSIST", key)

    def _plain(self, key: bytes) -> None:
        self._server.user("SET", key, self._value())

    def _delete(self, key: bytes) -> None:
        self._server.user(self._rng.choice(["DEL", "GETDEL"]), self._any(key))

    def _any(self, key: bytes) -> bytes:
        """It, or any other one that has a deadline."""
        if self._rng.random() < 0.5:
            return key
        return self._rng.choice([key, *(one for one in self._ending() if one.startswith(b"user:"))])

    def _ending(self) -> Collection[bytes]:
        return self._server.keyspace.databases[0].deadlines

    def _shorten(self, key: bytes) -> None:
        """Let it end in a moment."""
        key, ttl = self._any(key), self._rng.randrange(1, 40)
        if self._server.keyspace.databases[0].deadlines.get(key, 0) > self._now + ttl:
            self._server.user("PEXPIRE", key, ttl)

    def _flash(self, key: bytes) -> None:
        """Set, and deleted at once."""
        self._server.user("SET", key, self._value(), "PX", self._ttl())
        self._server.user("DEL", key)

    def _once(self) -> None:
        self._onces += 1
        ttl = 1 + int(self._rng.expovariate(1 / self._habits.lasting) * 1000)
        self._server.user("SET", b"user:o%d" % self._onces, self._value(), "PX", min(ttl, 8000))

    def _again(self, key: bytes) -> None:
        """The same life once more: deleted, and set with the same deadline."""
        deadline = self._server.keyspace.databases[0].deadlines.get(key)
        if deadline is not None and deadline > self._now:
            self._server.user("DEL", key)
            self._server.user("SET", key, self._value(), "PXAT", deadline)

    def _rename(self, key: bytes) -> None:
        self._server.user("RENAME", key, self._rng.choice(self.keys))

    def _copy(self, key: bytes) -> None:
        self._server.user("COPY", key, self._rng.choice(self.keys), "REPLACE")

    def _look(self, _: bytes) -> None:
        for key in self.keys:
            self._server.user("GET", key)

    def _other(self, key: bytes) -> None:
        """In another database, whose expirations count, too."""
        self._server.user("SET", key, self._value(), "PX", 20, database=1)

    def _crowd(self) -> None:
        self._crowds += 1
        deadline = self._deadline()
        for number in range(self._rng.randrange(5, 30)):
            self._server.user("SET", b"user:c%d:%d" % (self._crowds, number), self._value(), "PXAT", max(deadline, 1))
