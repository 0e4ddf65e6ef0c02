"""A scene with sentinels."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Unreached

from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.scene import now_ms
from tests.support.proxy import Protocol, Proxy
from tests.support.redis.sentinel import Group
from tests.support.servers import PATIENCE, Bridge, NatsServer, RedisServer, require, wait_until


class SentinelDeployment(Deployment):
    """With a NATS server behind a proxy, and bridges that ask sentinels for Redis, without one."""

    group: Group

    @classmethod
    @asynccontextmanager
    async def with_sentinels(
        cls, kind: type[RedisServer], *, settings: Mapping[str, str] | None = None
    ) -> AsyncIterator["SentinelDeployment"]:
        """Start the servers, no bridge yet."""
        require(NatsServer)
        async with AsyncExitStack() as stack:
            group = await stack.enter_async_context(Group.of(kind))
            nats_server = stack.enter_context(NatsServer())
            deployment = cls(stack, group.nodes[0], nats_server, None, settings)
            deployment.group = group
            deployment.redis = await stack.enter_async_context(Redis(port=group.nodes[0].port, decode_responses=True))
            deployment.nats_link = await stack.enter_async_context(Proxy(nats_server.port, Protocol.NATS))
            yield deployment
            deployment._end()

    async def start_bridge(self, *, direct: bool = False) -> Bridge:
        """See `Scene`."""
        addresses = {"BRIDGE_REDIS_URL": self.group.url, **self._to_broker(direct=direct)}
        bridge = Bridge({**addresses, **self.settings})
        self.bridges.append(await self._stack.enter_async_context(bridge))
        return bridge

    @property
    def servers(self) -> Sequence[RedisServer]:
        """See `Scene`."""
        return self.group.nodes

    async def follow(self) -> None:
        """What the user's services do is done on the primary of now."""
        primary = await self.group.primary()
        assert primary is not None
        self.redis_server = primary
        client = Redis(port=primary.port, decode_responses=True)
        self.redis = await self._stack.enter_async_context(client)

    async def recorded_by(self, node: RedisServer, ledger: str) -> None:
        """Return when the ledger of a node, which may be the replica, holds all deadlines that are not past yet."""
        async with Redis(port=node.port, decode_responses=True) as client:

            async def is_recorded() -> bool:
                now = now_ms()
                ahead = {key: deadline for key, deadline in self.expected.values() if deadline > now}
                try:
                    return not ahead or await client.zmscore(ledger, list(ahead)) == [*ahead.values()]
                except Unreached:
                    return False

            await wait_until(is_recorded, "the ledger of the replica", PATIENCE)
