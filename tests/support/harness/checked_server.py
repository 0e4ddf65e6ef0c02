"""A server with its chronicle: every step is checked by what the notifications themselves say happened."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from bridge.contracts import Entry
from bridge.expiration import Expiration, GapRecord
from tests.support.harness.chronicle import Chronicle, Life, Log
from tests.support.harness.hand import Hand
from tests.support.harness.user import NAMES, passed
from tests.support.servers import RedisServer

KEYS = [b"a", b"b"]
SHORT_MS = 25
"""Long enough for a key to be recorded, short enough to be waited for."""
LONG_MS = 60_000

_LIVE = """
local time = redis.call('TIME')
local deadline = math.max(time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[3])
if ARGV[1] == 'SET' then redis.call('SET', KEYS[1], '', 'PXAT', deadline) return {1, deadline} end
return {redis.call('PEXPIREAT', KEYS[1], deadline), deadline}
"""
_AGAIN = """
local time, deadline = redis.call('TIME'), redis.call('PEXPIRETIME', KEYS[1])
if deadline <= time[1] * 1000 + math.floor(time[2] / 1000) + 2 then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], '', 'PXAT', deadline)
return deadline
"""

_RENAME = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('RENAME', KEYS[1], KEYS[2])
return 1
"""


class CheckedServer:
    """The server's user, the epoch that holds the lease, and the chronicle."""

    def __init__(self, server: RedisServer, user: Redis) -> None:
        self.user, self.server = user, server
        self.chronicle = Chronicle()
        self.hand = Hand(server, instance="0")
        self.unsettled: list[Entry] = []
        """What is in the outbox."""
        self.entries: dict[bytes, int] = {}
        """The ledger: deadlines by key."""
        self._log = Log(user)
        self._read = b"0-0"
        self._counted, self._recorded_counts = 0, 0
        self._last = {SHORT_MS: 0, LONG_MS: 0}

    async def open(self) -> None:
        """Empty the server, and watch it."""
        await self.user.flushall()
        await self._log.open()

    async def close(self) -> None:
        """Watch it no longer."""
        await self._log.close()

    async def look(self, handled: Sequence[Life] = ()) -> None:
        """See what the last script, or command, has done, and check it."""
        events = await self._log.new()
        for event, key in events:
            self.chronicle.ended(event, key, self.entries)
        before = self.entries
        scores: Any = await self.user.zrange(NAMES.deadlines, 0, -1, withscores=True)
        self.entries = {key: int(score) for key, score in scores}
        ambiguous, depth = await self.user.hmget(NAMES.lease, "ambiguous", "depth")
        claims = []
        for entry in await self.hand.entries(self._read):
            self._read = entry.id
            self.unsettled.append(entry)
            for found in entry.events:
                if isinstance(found, GapRecord):
                    self._recorded_counts += found.ambiguous
                else:
                    claims.append(found)
        self.chronicle.claimed(claims, handled)
        counted = self._recorded_counts + int(ambiguous or 0)
        self.chronicle.check(before, self.entries, counted - self._counted)
        self._counted = counted
        assert int(depth or 0) == expirations(self.unsettled), "the outbox's depth"

    # The user.

    async def live(self, command: str, key: bytes, ttl: int) -> None:
        done, deadline = await self.user.eval(_LIVE, 1, key, command, ttl, self._last[ttl] + 1)
        await self.look()
        if done:
            self._last[ttl] = deadline
            self.chronicle.began(key, deadline)

    async def alter(self, command: str, key: bytes) -> None:
        user, target = self.user, KEYS[1]
        done: Any
        if command == "DEL":
            await user.delete(key)
            done = False
        elif command == "DEL, SET":
            done = await user.eval(_AGAIN, 1, key)
        elif command == "RENAME":
            done = key != target and await user.eval(_RENAME, 2, key, target)
        else:
            done = await (user.persist(key) if command == "PERSIST" else user.set(key, b""))
        former = self.chronicle.alive(key)
        await self.look()
        if done and former is not None and command in {"RENAME", "DEL, SET"}:
            self.chronicle.began(target if command == "RENAME" else key, former.deadline)
        elif done:
            self.chronicle.began(key, None)

    async def read(self) -> None:
        await self.user.exists(*KEYS)
        await self.look()

    async def wait(self) -> None:
        """Let all short deadlines pass; nothing expires by that."""
        lives = [life for key in KEYS if (life := self.chronicle.alive(key)) is not None]
        deadlines = [*(life.deadline for life in lives if life.deadline), *self.entries.values()]
        short = [deadline for deadline in deadlines if deadline <= self._last[SHORT_MS]]
        if short:
            await passed(self.user, max(short))


def expirations(entries: Sequence[Entry]) -> int:
    """How many of them these entries hold."""
    return sum(isinstance(event, Expiration) for entry in entries for event in entry.events)
