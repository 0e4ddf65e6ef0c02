"""Writers of hash fields that know which of them expire, and the judgement of what a bridge announced.

Each writer has one field. Time and again it sets it with a deadline, and then lets it expire or writes it once more
before. The server's clock, read before and behind each write, says which of both it was; where it does not, neither is
wrong.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from redis.asyncio import Redis

Life = tuple[bytes, bytes, int]
"""Hash, field, deadline in ms."""


class Fate(Enum):
    """Of one life."""

    EXPIRED = auto()
    WITHDRAWN = auto()
    """It was written once more before its deadline, or deleted."""
    UNKNOWN = auto()
    """It was written just when its deadline was; or no bridge had recorded it in time."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of it."""

    expired: int
    announced: int
    """Of those that expired."""
    missed: list[Life]
    false: list[Life]
    """Announced, and withdrawn."""
    foreign: list[Life]
    """Announced, and never set."""
    twice: list[Life]
    unknown: int
    lags_ms: list[float]

    def __str__(self) -> str:
        lags = sorted(self.lags_ms) or [0.0]
        middle, late = lags[len(lags) // 2], lags[min(len(lags) * 99 // 100, len(lags) - 1)]
        return (
            f"{self.announced} of {self.expired} announced ({100 * self.announced / max(self.expired, 1):.2f} %),"
            f" {len(self.false)} false, {len(self.twice)} twice, {self.unknown} undecidable;"
            f" claimed p50 {middle:.0f} ms, p99 {late:.0f} ms, max {lags[-1]:.0f} ms late"
        )


@dataclass
class Oracle:
    """Of hashes whose names begin with `of`."""

    user: Redis
    chance: random.Random
    near: float
    """The share of writes within 4 ms of a deadline."""
    apart_ms: int
    """How far all other writes keep from it."""
    hashes: int = 8
    fields: int = 12
    index_of: bytes = b"{expiry-bridge:0:0}:field:"
    shortest_ms: int = 150
    longest_ms: int = 500
    fates: dict[Life, Fate] = field(default_factory=dict)
    _recorded: set[Life] = field(default_factory=set)

    async def write(self, seconds: float) -> None:
        """Let all writers work for so long, and what they leave expire."""
        end = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as writers:
            for number in range(self.hashes):
                for one in range(self.fields):
                    writers.create_task(self._writer(b"hash:%d" % number, b"field:%d" % one, end))

    def judge(self, events: Iterable[dict[str, Any]], but: Iterable[Life] = ()) -> Judgement:
        """What a bridge announced, as data of CloudEvents."""
        found, lags = Counter[Life](), list[float]()
        for data in events:
            life = (data["key"].encode(), data["field"].encode(), data["deadline_ms"])
            found[life] += 1
            lags.append(data["observed_ms"] - data["deadline_ms"])
        of = {fate: {life for life, its in self.fates.items() if its is fate} for fate in Fate}
        return Judgement(
            len(of[Fate.EXPIRED]),
            len(of[Fate.EXPIRED] & found.keys()),
            sorted(of[Fate.EXPIRED] - found.keys()),
            sorted(of[Fate.WITHDRAWN] & found.keys()),
            sorted(found.keys() - self.fates.keys()),
            [life for life, count in found.items() if count > 1],
            len(of[Fate.UNKNOWN]),
            lags,
        )

    async def _writer(self, hash_: bytes, name: bytes, end: float) -> None:
        await asyncio.sleep(self.chance.random() * self.longest_ms / 1000)
        life: Life | None = None
        while asyncio.get_running_loop().time() < end:
            life = await self._live(hash_, name, life)
        if life is not None:
            await self._see(life)
            await self._until(life[2] + 50)
            self._end(life, life[2] + 50, life[2] + 50)

    async def _live(self, hash_: bytes, name: bytes, former: Life | None) -> Life | None:
        """Set it; wait until it has expired, or the next write is due. The life that is not over, if any."""
        ttl = self.chance.randint(self.shortest_ms, self.longest_ms)
        life = await self._set(hash_, name, ttl, former)
        deadline = life[2]
        if self.chance.random() < self.near:
            await self._see(life)
            await self._until(deadline + self.chance.uniform(-4, 4))
        elif self.chance.random() < 0.4:
            await self._until(deadline - self.chance.uniform(self.apart_ms, max(ttl, self.apart_ms)))
        else:
            await self._see(life)
            await self._until(deadline + self.apart_ms + self.chance.uniform(0, 100))
        match self.chance.randrange(4):
            case 0:
                await self._end_with(life, "HDEL", hash_, name)
            case 1:
                await self._end_with(life, "HPERSIST", hash_, "FIELDS", 1, name)
            case 2:
                await self._end_with(life, "HSET", hash_, name, "anew")
            case _:
                return life  # set anew at once, with another deadline
        return None

    async def _set(self, hash_: bytes, name: bytes, ttl: int, former: Life | None) -> Life:
        before = await self._now()
        life = (hash_, name, int(before) + ttl)
        async with self.user.pipeline(transaction=True) as both:
            both.hset(hash_, name, "value")
            both.execute_command("HPEXPIREAT", hash_, life[2], "FIELDS", 1, name)
            await both.execute()
        if former is not None:
            self._end(former, before, await self._now())
        self.fates[life] = Fate.UNKNOWN
        return life

    async def _end_with(self, life: Life, *command: bytes | str | int) -> None:
        before = await self._now()
        reply = await self.user.execute_command(*command)  # type: ignore[no-untyped-call]
        after = await self._now()
        self._end(life, before, after)
        if command[0] == "HPERSIST" and before > life[2] and (reply[0] if isinstance(reply, list) else reply) == 1:
            self.fates[life] = Fate.UNKNOWN  # it was past its deadline, and is back

    async def _see(self, life: Life) -> None:
        """Halfway to its deadline, look whether a bridge has recorded it: else nothing is promised of it."""
        hash_, name, deadline = life
        await self._until((await self._now() + deadline) / 2)
        if await self.user.zscore(self.index_of + hash_, name) == deadline:
            self._recorded.add(life)

    def _end(self, life: Life, before: float, after: float) -> None:
        deadline = life[2]
        if after < deadline:
            self.fates[life] = Fate.WITHDRAWN
        elif before > deadline + 1 and life in self._recorded:
            self.fates[life] = Fate.EXPIRED

    async def _until(self, moment: float) -> None:
        await asyncio.sleep(max(moment - await self._now(), 0) / 1000)

    async def _now(self) -> float:
        seconds, microseconds = await self.user.time()
        return int(seconds) * 1000 + int(microseconds) / 1000
