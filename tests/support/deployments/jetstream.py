"""A scene with a NATS server."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

import nats
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from tests.support.contract import STREAM
from tests.support.deployments.scene import Scene
from tests.support.deployments.stored import StoredMessage
from tests.support.proxy import Protocol, Proxy
from tests.support.servers import PATIENCE, NatsServer, RedisServer, require, wait_until


class Deployment(Scene):
    """With a NATS server, and a proxy before it."""

    def __init__(
        self,
        stack: AsyncExitStack,
        redis_server: RedisServer,
        nats_server: NatsServer,
        nats_login: Mapping[str, str] | None,
        settings: Mapping[str, str] | None,
    ) -> None:
        super().__init__(stack, redis_server, settings)
        self.nats_server = nats_server
        self.nats_login = nats_login or {}
        self.nats_link: Proxy

    @classmethod
    @asynccontextmanager
    async def of(
        cls,
        kind: type[RedisServer],
        *,
        redis: Mapping[str, str] | None = None,
        nats_config: str = "",
        nats_login: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Self]:
        """Start the servers and the proxies, no bridge yet. `settings` are BRIDGE_* variables of all bridges."""
        require(kind)
        require(NatsServer)
        async with AsyncExitStack() as stack:
            redis_server = stack.enter_context(kind(redis))
            nats_server = stack.enter_context(NatsServer(nats_config))
            deployment = cls(stack, redis_server, nats_server, nats_login, settings)
            await deployment._open()
            deployment.nats_link = await stack.enter_async_context(Proxy(nats_server.port, Protocol.NATS))
            yield deployment
            deployment._end()

    def _to_broker(self, *, direct: bool) -> dict[str, str]:
        port = self.nats_server.port if direct else self.nats_link.port
        return {"BRIDGE_NATS_URL": f"nats://127.0.0.1:{port}"}

    @property
    def broker(self) -> NatsServer:
        """See `Scene`."""
        return self.nats_server

    @property
    def broker_link(self) -> Proxy:
        """See `Scene`."""
        return self.nats_link

    @asynccontextmanager
    async def jetstream(self) -> AsyncIterator[JetStreamContext]:
        """A client past the proxy."""
        client = await nats.connect(self.nats_server.url, **self.nats_login)
        try:
            yield client.jetstream(timeout=PATIENCE)
        finally:
            await client.close()

    async def arrived(self, least: int = 0) -> list[StoredMessage] | None:
        """See `Scene`."""
        messages: list[Msg] = []

        async def take(message: Msg) -> None:
            messages.append(message)

        async with self.jetstream() as jetstream:
            try:
                info = await jetstream.stream_info(STREAM)
            except NotFoundError:
                return None
            if info.state.messages < least:
                return None
            await jetstream.subscribe(">", stream=STREAM, ordered_consumer=True, cb=take)
            await wait_until(lambda: len(messages) >= info.state.messages, "what the stream holds", PATIENCE)
        return [
            StoredMessage(
                json.loads(message.data),
                (message.headers or {})["Nats-Msg-Id"],
                message.subject,
                message.metadata.timestamp.timestamp() * 1000,
            )
            for message in messages
        ]
