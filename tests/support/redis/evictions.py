"""Which keys Redis has evicted. Its own counter does not say that: it counts the bridge's canaries as well."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

EVICTED, ASKED = "__keyevent@0__:evicted", "evictions-asked"


class Evictions:
    """Those of database 0, since it subscribed. Redis has to notify them (`e`)."""

    def __init__(self, user: Redis, pubsub: PubSub) -> None:
        self._user = user
        self._pubsub = pubsub
        self._keys: list[bytes] = []

    async def keys(self) -> list[bytes]:
        """All that were evicted before the call, in their order; one of several lives is in it several times."""
        await self._user.publish(ASKED, "")
        async for message in self._pubsub.listen():
            if message["type"] == "message":
                if message["channel"] == ASKED.encode():
                    break
                self._keys.append(message["data"])
        return list(self._keys)


@asynccontextmanager
async def evictions(user: Redis) -> AsyncIterator[Evictions]:
    """From now on."""
    async with user.pubsub() as pubsub:
        await pubsub.subscribe(EVICTED, ASKED)
        for _ in (EVICTED, ASKED):
            await pubsub.get_message(timeout=None)  # that it is subscribed
        yield Evictions(user, pubsub)
