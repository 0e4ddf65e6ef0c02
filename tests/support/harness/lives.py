"""Lives of keys whose last values are known for sure: what an announced value is judged by.

Each key is written by one task, one command at a time, and each command says whether it found the key alive. So it is
known which write was the last one of a life, however near to its deadline it came.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from tests.support.harness.published import Event, key_of
from tests.support.redis.commands import redis_ms

Life = tuple[bytes, int]
"""Key and deadline."""

_WRITES: Mapping[str, str] = {
    "string": "redis.call('SET', KEYS[1], ARGV[1], 'KEEPTTL')",
    "hash": "redis.call('HSET', KEYS[1], 'v', ARGV[1], 'f' .. ARGV[1], '')",
    "list": "redis.call('RPUSH', KEYS[1], ARGV[1])",
    "set": "redis.call('SADD', KEYS[1], ARGV[1])",
    "zset": "redis.call('ZADD', KEYS[1], ARGV[1], ARGV[1])",
}
_IF_ALIVE = "if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end %s return 1"
_BEGIN = "redis.call('DEL', KEYS[1]) %s redis.call('PEXPIREAT', KEYS[1], ARGV[2]) return 1"


def value_after(kind: str, writes: Sequence[int]) -> object:
    """What a message says of a key of that type after these writes, each of which was its number."""
    words = [str(write) for write in writes]
    match kind:
        case "hash":
            return {"v": words[-1], **{f"f{word}": "" for word in words}}
        case "list":
            return words
        case "set":
            return set(words)
        case "zset":
            return [[word, float(word)] for word in sorted(words, key=int)]
    return words[-1]


class Lives:
    """All that a test writes."""

    def __init__(self, user: Redis, seed: int) -> None:
        self._user = user
        self._seed = seed
        self.last: dict[Life, object] = {}
        """The value at the end of each life, if the key was not deleted."""
        self.kinds: dict[bytes, str] = {}

    async def go_on(self, seconds: float, tasks: int = 40) -> None:
        """Write for so long."""
        end = asyncio.get_running_loop().time() + seconds
        ahead = await redis_ms(self._user) - asyncio.get_running_loop().time() * 1000
        async with asyncio.TaskGroup() as writing:
            for number in range(tasks):
                rng = random.Random(f"{self._seed}:{number}")
                writing.create_task(self._write(number, rng, end, ahead))

    async def _write(self, number: int, rng: random.Random, end: float, ahead: float) -> None:
        loop = asyncio.get_running_loop()
        kind = list(_WRITES)[number % len(_WRITES)]
        count = 0
        while loop.time() < end:
            count += 1
            # Now and then a key lives twice.
            key = b"life:%d:%d" % (number, count // 2 if rng.random() < 0.3 else count)
            self.kinds[key] = kind
            await self._live(key, kind, rng, ahead)

    async def _live(self, key: bytes, kind: str, rng: random.Random, ahead: float) -> None:
        loop, user = asyncio.get_running_loop(), self._user
        deadline = int(loop.time() * 1000 + ahead) + rng.randrange(20, 300)
        writes = [rng.randrange(1000)]
        begin = _BEGIN % _WRITES[kind]
        await user.eval(begin, 1, key, str(writes[0]), str(deadline))
        write = _IF_ALIVE % _WRITES[kind]
        while True:
            left = deadline - (loop.time() * 1000 + ahead)
            # A third of the writes are aimed at the last milliseconds.
            pause = left - rng.uniform(-3, 8) if rng.random() < 0.3 else rng.uniform(1, 60)
            await asyncio.sleep(max(pause, 0) / 1000)
            choice = rng.random()
            if choice < 0.1:
                later = deadline + rng.randrange(30, 150)
                if not await user.pexpireat(key, later):
                    break
                deadline = later
            elif choice < 0.15:
                if await user.delete(key):
                    return
                break
            else:
                number = writes[-1] + rng.randrange(1, 5)
                if not await user.eval(write, 1, key, str(number)):
                    break
                writes.append(number)
        self.last[key, deadline] = value_after(kind, writes)

    def judge(self, events: Sequence[Event]) -> Counter[str]:
        """How many of these were announced how; raises AssertionError for a false proof."""
        outcomes = Counter[str]()
        for event in events:
            data: dict[str, Any] = event["data"]
            key = key_of(event)
            if key not in self.kinds:
                continue
            if data.get("value") is None:
                outcomes[data["value_missing"] + (" no deadline" if data["deadline_ms"] is None else "")] += 1
                continue
            value = set(data["value"]) if self.kinds[key] == "set" else data["value"]
            true = self.last.get((key, data["deadline_ms"]))
            assert data["value_type"] == self.kinds[key]
            if data["value_exact"]:
                assert value == true, f"{data}: it was {true}"
                outcomes["exact"] += 1
            else:
                outcomes["true" if value == true else "old"] += 1
        return outcomes
