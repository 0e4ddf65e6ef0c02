"""A scene with a NATS cluster."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import nats
from nats.errors import Error

from tests.support.brokers.nats_cluster import NatsCluster
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.stored import StoredMessage
from tests.support.servers import RedisServer, require


class NatsClusterDeployment(Deployment):
    """With a NATS cluster, and no proxies."""

    cluster: NatsCluster

    @classmethod
    @asynccontextmanager
    async def with_cluster(
        cls, kind: type[RedisServer], *, settings: Mapping[str, str] | None = None
    ) -> AsyncIterator["NatsClusterDeployment"]:
        """Start the servers, no bridge yet."""
        require(kind)
        async with AsyncExitStack() as stack:
            cluster = await stack.enter_async_context(NatsCluster.of())
            redis_server = stack.enter_context(kind())
            deployment = cls(stack, redis_server, cluster.servers[0], None, settings)
            deployment.cluster = cluster
            await deployment._open()
            yield deployment
            deployment._end()

    async def arrived(self, least: int = 0) -> list[StoredMessage] | None:
        """See `Scene`. While the cluster has no leader, that is not known."""
        try:
            return await super().arrived(least)
        except Error:
            return None

    def _to_broker(self, *, direct: bool) -> dict[str, str]:
        return {"BRIDGE_NATS_URL": self.cluster.url}

    @asynccontextmanager
    async def jetstream(self) -> AsyncIterator[nats.js.JetStreamContext]:
        """See `Deployment`."""
        async with self.cluster.client() as client:
            yield client.jetstream()
