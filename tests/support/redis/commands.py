"""Commands as a user of Redis gives them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from tests.support.contract import LEDGER
from tests.support.servers import RedisServer, wait_until

DEBUG = {"enable-debug-command": "yes"}
"""For a server on which `lazily` works."""
SET_TOGETHER = """
local time = redis.call('TIME')
local deadline = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1])
for i = 3, #ARGV do
  redis.call('SET', ARGV[i], 'v', 'PXAT', deadline)
  if ARGV[2] == '1' then redis.call('ZADD', KEYS[1], deadline, ARGV[i]) end
end
return deadline
"""
"""Sets keys that expire at one moment, and returns it: ledger, milliseconds from now, whether the ledger shall know the
deadlines at once, keys. A bridge on a busy machine might be too late to record them before they are past.
"""
Word = str | bytes | int
Command = tuple[Word, ...]


@asynccontextmanager
async def user_of(server: RedisServer, db: int = 0) -> AsyncIterator[Redis]:
    """The connection of a user's own service, straight to the server."""
    async with Redis(port=server.port, db=db, protocol=2) as redis:
        yield redis


async def run(redis: Redis, *command: Word) -> Any:  # noqa: ANN401 - a reply's shape is its command's
    """Run one command, as it would be typed."""
    return await redis.execute_command(*command)  # type: ignore[no-untyped-call]


async def redis_ms(redis: Redis) -> int:
    """Redis's clock."""
    seconds, microseconds = await redis.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


async def deadline_after(redis: Redis, key: bytes, *commands: Command, atomic: bool = False) -> int:
    """Run `commands` in one go, in a transaction if `atomic`; then the key's deadline."""
    pipeline = redis.pipeline(transaction=atomic)
    for command in (*commands, ("PEXPIRETIME", key)):
        pipeline.execute_command(*command)
    return int((await pipeline.execute())[-1])


async def set_for(redis: Redis, key: bytes, ms: int) -> int:
    """Set a key that lives for `ms` milliseconds; its deadline."""
    return await deadline_after(redis, key, ("SET", key, "v", "PX", ms), atomic=True)


async def set_known(redis: Redis, key: bytes, ms: int, ledger: str = LEDGER) -> int:
    """The same; the ledger knows the deadline at once, however late the bridge is: see `SET_TOGETHER`."""
    return int(await run(redis, "EVAL", SET_TOGETHER, 1, ledger, ms, 1, key))


async def recorded(redis: Redis, key: bytes, deadline_ms: int | None, ledger: str = LEDGER) -> None:
    """Return when the ledger holds the key with this deadline; with None, when it does not hold it."""

    async def is_recorded() -> bool:
        return await redis.zscore(ledger, key) == deadline_ms

    await wait_until(is_recorded, f"{key[:100]!r} in the ledger with {deadline_ms}")


async def lazily(redis: Redis) -> None:
    """From now on a key expires only when it is read. The server needs the configuration `DEBUG`."""
    await run(redis, "DEBUG", "SET-ACTIVE-EXPIRE", 0)
