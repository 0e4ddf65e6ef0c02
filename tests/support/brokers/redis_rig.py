"""The Redis sink for the conformance suite: a server of its own."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Self, cast

from redis.asyncio import Redis

from bridge.clock import SystemClock
from bridge.limits import WireLimits
from bridge.settings import Settings
from bridge.sinks.redis import RedisSink
from tests.support.brokers.caller import Caller
from tests.support.brokers.rigs import BrokerRig, Received
from tests.support.servers import RedisServer, require

STREAM = b"expired"


class RedisRig(BrokerRig):
    """A Redis that keeps what it has answered."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - of any field's type
        super().__init__()
        require(RedisServer)
        self.server = RedisServer({"appendfsync": "always"}, appendonly=True)
        self.places: dict[str, tuple[int, int]] = {}
        """See `Caller`."""
        self.settings = {"sink_redis_url": self.server.url, **settings}

    def sink(self, limits: WireLimits | None = None, **settings: Any) -> Caller:  # noqa: ANN401 - likewise
        """See `Rig`."""
        made = Settings(**{**self.settings, **settings})
        return Caller(RedisSink(made, 0, SystemClock(), limits or WireLimits(), self.observed), self.places)

    @contextlib.asynccontextmanager
    async def opened(self, limits: WireLimits | None = None, **settings: Any) -> AsyncIterator[Caller]:  # noqa: ANN401 - likewise
        """A new one, open until the end of the block."""
        sink = self.sink(limits, **settings)
        try:
            await sink.open()
            yield sink
        finally:
            await sink.close()

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Redis]:
        """A client of the test's own."""
        async with Redis(port=self.server.port) as client:
            yield client

    async def stored(self, stream: bytes = STREAM) -> list[str]:
        """See `Rig`."""
        return [message.headers["ce_id"] for message in await self.received(stream)]

    async def received(self, stream: bytes = STREAM) -> list[Received]:
        """See `BrokerRig`."""
        async with self.client() as client:
            entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", await client.xrange(stream))
        found = []
        for _, fields in entries:
            key, body = fields.pop(b"key"), fields.pop(b"body")
            headers = {name.decode(): value.decode() for name, value in fields.items()}
            found.append(Received(stream.decode(), key, headers, body))
        return found

    def freeze(self) -> None:
        """See `Rig`."""
        self.server.pause()

    def thaw(self) -> None:
        """See `Rig`."""
        self.server.resume()

    async def __aenter__(self) -> Self:
        self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
