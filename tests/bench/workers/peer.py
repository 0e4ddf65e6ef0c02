"""What teams write themselves to announce expirations, until it is killed: see `KINDS`, and `tests/bench/peers.py`.

`subscriber` publishes the key of each notification. `phantom` does so for phantom keys, as Spring Session does: once a
span has passed, it touches all phantoms of its index, so that Redis expires the late ones. `poller` asks a sorted set
each second what is due, and takes a key out of it once that is published.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import nats
from redis.asyncio import Redis

from tests.bench.patterns import DUE, INDEX, PHANTOM, span_end
from tests.bench.spoken import READY, say, told

POLL_SECONDS: Final = 1.0
BATCH: Final = 1_000

Decoding = Any
"""A client of Redis that decodes what it gets, of which the library's types do not know."""
Publish = Callable[[str, str], Awaitable[None]]
"""A key, and the id of its message."""


async def main(kind: str, subject: str, redis_url: str, nats_url: str, clean_up_seconds: float) -> None:
    """Go on for ever."""
    jetstream = (await nats.connect(nats_url)).jetstream()

    async def publish(key: str, id_: str) -> None:
        await jetstream.publish(subject, key.encode(), headers={"Nats-Msg-Id": id_})

    redis = Redis.from_url(redis_url, protocol=2, decode_responses=True)
    await KINDS[kind](redis, publish, clean_up_seconds)


async def subscriber(redis: Decoding, publish: Publish, _clean_up_seconds: float) -> None:
    """What expired is the key."""
    async for key in expired(redis):
        await publish(key, key)


async def phantoms(redis: Decoding, publish: Publish, clean_up_seconds: float) -> None:
    """What expired is the phantom; the key is still there."""

    async def listen() -> None:
        async for phantom in expired(redis):
            key = phantom.removeprefix(PHANTOM)
            if phantom != key and await redis.get(key) is not None:
                await publish(key, key)

    async def clean_up() -> None:
        while True:
            end_ms = span_end(time.time() * 1000, clean_up_seconds)
            await asyncio.sleep(end_ms / 1000 - time.time())
            members = await redis.smembers(f"{INDEX}{end_ms}")
            await redis.delete(f"{INDEX}{end_ms}")
            for key in members:
                await redis.exists(PHANTOM + key)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listen())
        tasks.create_task(clean_up())


async def poller(redis: Decoding, publish: Publish, _clean_up_seconds: float) -> None:
    """No notifications."""
    say(READY)
    while True:
        while due := await redis.zrangebyscore(DUE, "-inf", time.time() * 1000, start=0, num=BATCH, withscores=True):
            for key, deadline_ms in due:
                await publish(key, f"{key}@{deadline_ms:.0f}")
                await redis.zrem(DUE, key)
        await asyncio.sleep(POLL_SECONDS)


async def expired(redis: Decoding) -> AsyncIterator[str]:
    """The key of each notification."""
    notifications = redis.pubsub()
    await notifications.psubscribe("__keyevent@*__:expired")
    async for message in notifications.listen():
        if message["type"] == "pmessage":
            yield message["data"]
        else:
            say(READY)


KINDS: Final[Mapping[str, Callable[[Decoding, Publish, float], Awaitable[None]]]] = {
    "subscriber": subscriber,
    "phantom": phantoms,
    "poller": poller,
}

if __name__ == "__main__":
    asyncio.run(main(**told()))
