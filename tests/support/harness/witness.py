"""A witness of what really expired: it counts `expired` notifications by itself, past the bridge."""

import asyncio
from collections import Counter
from typing import Self

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from bridge.tasks import end
from tests.support.harness.published import SENTINEL
from tests.support.harness.user import NAMES
from tests.support.servers import wait_until


class Witness:
    """An independent subscriber: how often each key was notified to have expired."""

    def __init__(self, user: Redis) -> None:
        self.counts: Counter[bytes] = Counter()
        self._user = user
        self._tokens = 0
        self._seen: set[bytes] = set()
        self._pubsub: PubSub = user.pubsub()
        self._task: asyncio.Task[None] | None = None

    @property
    def total(self) -> int:
        """How many expirations there were, those of sentinels and of canaries not included."""
        return self.counts.total()

    async def caught_up(self) -> None:
        """Return when everything is counted that was notified before the call."""
        self._tokens += 1
        token = b"%d" % self._tokens
        await self._user.publish("witness", token)
        await wait_until(lambda: token in self._seen, "the witness")

    async def __aenter__(self) -> Self:
        await self._pubsub.subscribe(b"__keyevent@0__:expired", b"witness")
        self._task = asyncio.create_task(self._count(), name="witness")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        await end([self._task])
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _count(self) -> None:
        async for message in self._pubsub.listen():
            if message["type"] != "message":
                continue
            if message["channel"] == b"witness":
                self._seen.add(message["data"])
            elif not message["data"].startswith((SENTINEL, NAMES.own_prefix)):
                self.counts[message["data"]] += 1
