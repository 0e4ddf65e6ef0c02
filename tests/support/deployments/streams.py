"""A scene with a Redis for its streams."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self, cast

from redis.asyncio import Redis

from tests.support.deployments.scene import DURABLE, Scene
from tests.support.deployments.stored import StoredMessage
from tests.support.proxy import Protocol, Proxy
from tests.support.servers import RedisServer, require

EXPIRED = "expired"


class StreamsDeployment(Scene):
    """With a Redis of its own for the streams, and a proxy before that."""

    def __init__(
        self, stack: AsyncExitStack, source: RedisServer, sink: RedisServer, settings: Mapping[str, str]
    ) -> None:
        super().__init__(stack, source, settings)
        self.sink_server = sink
        self.sink_link: Proxy

    @classmethod
    @asynccontextmanager
    async def of(cls, kind: type[RedisServer], settings: Mapping[str, str] | None = None) -> AsyncIterator[Self]:
        """Start the servers and the proxies, no bridge yet."""
        require(kind)
        async with AsyncExitStack() as stack:
            source = stack.enter_context(kind(DURABLE))
            sink = stack.enter_context(kind({"appendonly": "yes", "appendfsync": "always"}))
            deployment = cls(stack, source, sink, settings or {})
            await deployment._open()
            deployment.sink_link = await stack.enter_async_context(Proxy(sink.port, Protocol.RESP))
            yield deployment
            deployment._end()

    def _to_broker(self, *, direct: bool) -> dict[str, str]:
        port = self.sink_server.port if direct else self.sink_link.port
        return {"BRIDGE_SINK": "redis", "BRIDGE_SINK_REDIS_URL": f"redis://127.0.0.1:{port}/0"}

    @property
    def broker(self) -> RedisServer:
        """See `Scene`."""
        return self.sink_server

    @property
    def broker_link(self) -> Proxy:
        """See `Scene`."""
        return self.sink_link

    async def arrived(self, least: int = 0) -> list[StoredMessage] | None:
        """See `Scene`."""
        async with Redis(port=self.sink_server.port, decode_responses=True) as client:
            entries = cast("list[tuple[str, dict[str, str]]]", await client.xrange(EXPIRED))
        stored = [
            StoredMessage(json.loads(fields["body"]), fields["ce_id"], EXPIRED, float(entry_id.partition("-")[0]))
            for entry_id, fields in entries
        ]
        return stored if len(stored) >= least else None
