"""The expirations that arrive in the stream."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import nats
from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy
from redis.asyncio import Redis

from tests.support.contract import Arrived
from tests.support.redis.commands import redis_ms, run
from tests.support.servers import NatsServer, wait_until

START, NEW = DeliverPolicy.ALL, DeliverPolicy.NEW


@asynccontextmanager
async def arrivals(
    server: NatsServer, since: DeliverPolicy = NEW, *, stream: str = "EXPIRY", url: str | None = None
) -> AsyncIterator[list[Arrived]]:
    """The expirations in the stream, in its order; the list grows as they come. `url` may hold a login."""
    arrived: list[Arrived] = []

    async def take(message: Msg) -> None:
        if expiration := Arrived.of(message):
            arrived.append(expiration)

    connection = await nats.connect(url or server.url)
    try:
        await connection.jetstream().subscribe(">", stream=stream, ordered_consumer=True, cb=take, deliver_policy=since)
        yield arrived
    finally:
        await connection.close()


def told(arrived: Sequence[Arrived], keys: Collection[bytes]) -> dict[bytes, list[int | None]]:
    """The deadlines of which messages tell, in the stream's order, of those of `keys` of which any tells."""
    deadlines: dict[bytes, list[int | None]] = {}
    for message in arrived:
        if message.key in keys:
            deadlines.setdefault(message.key, []).append(message.deadline_ms)
    return deadlines


async def all_of(arrived: Sequence[Arrived], keys: Collection[bytes], count: int = 1) -> None:
    """Return when `count` messages of each of `keys` have arrived."""

    def missing() -> list[bytes]:
        found = told(arrived, keys)
        return [key for key in keys if len(found.get(key, ())) < count]

    await wait_until(lambda: not missing(), lambda: f"messages of {missing()}")


async def everything_due(redis: Redis, arrived: Sequence[Arrived], until_ms: int = 0) -> None:
    """Return when the message of a sentinel has arrived, whose deadline lies behind `until_ms` and behind now."""
    number = await redis.incr("sentinels")
    sentinel = b"sentinel:%d" % number
    deadline_ms = max(until_ms, await redis_ms(redis)) + 250
    await run(redis, "SET", sentinel, "v", "PXAT", deadline_ms)
    await all_of(arrived, {sentinel})
