"""Three Kafka nodes that are one cluster, each of them a broker and a controller."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from bridge.commands.embedded.kafka import addresses
from tests.support.brokers.kafka import KafkaServer
from tests.support.deployments.kafka import KafkaDeployment
from tests.support.servers import PATIENCE, RedisServer, require, start, wait_until

ANSWER_MS = 1000
"""The client asks any node, also one that is frozen."""


def nodes_of_a_cluster(size: int = 3) -> list[KafkaServer]:
    """The nodes, not started. What they create has a copy on each, of which two must have what is acked."""
    nodes = [KafkaServer() for _ in range(size)]
    voters = ",".join(f"{number}@127.0.0.1:{node.controller_port}" for number, node in enumerate(nodes, 1))
    for number, node in enumerate(nodes, 1):
        node.node = number
        node.heap_mb = 256
        node.config = {
            "controller.quorum.voters": voters,
            "listeners": addresses({"PLAINTEXT": node.port, "CONTROLLER": node.controller_port}),
            "advertised.listeners": addresses({"PLAINTEXT": node.port}),
            "default.replication.factor": str(size),
            "min.insync.replicas": str(size - 1),
            "offsets.topic.replication.factor": str(size),
            "transaction.state.log.replication.factor": str(size),
            "transaction.state.log.min.isr": str(size - 1),
        }
    return nodes


@asynccontextmanager
async def cluster_of(size: int = 3) -> AsyncIterator[list[KafkaServer]]:
    """Such nodes, started."""
    require(KafkaServer)
    nodes = nodes_of_a_cluster(size)
    with ExitStack() as stack:
        for node in nodes:
            stack.callback(node.close)
        await asyncio.gather(*map(start, nodes))  # one alone is no majority, and does not answer
        yield nodes


class KafkaClusterDeployment(KafkaDeployment):
    """With such a cluster, which others may use as well, and no proxies."""

    nodes: list[KafkaServer]

    @classmethod
    @asynccontextmanager
    async def on(
        cls, nodes: list[KafkaServer], kind: type[RedisServer], *, settings: Mapping[str, str] | None = None
    ) -> AsyncIterator["KafkaClusterDeployment"]:
        """Start a Redis, no bridge yet. `settings` are BRIDGE_* variables of all bridges."""
        require(kind)
        async with AsyncExitStack() as stack:
            deployment = cls(stack, stack.enter_context(kind()), nodes[0], settings)
            deployment.nodes = nodes
            await deployment._open()
            yield deployment
            deployment._end()

    def _to_broker(self, *, direct: bool) -> dict[str, str]:
        own = super()._to_broker(direct=True)
        return {**own, "BRIDGE_KAFKA_BOOTSTRAP_SERVERS": ",".join(node.address for node in self.nodes)}

    async def partitions(self) -> list[dict[str, Any]]:
        """The partitions of the bridge's topic, as the node that is asked knows them; none while it does not answer."""
        client = AIOKafkaAdminClient(bootstrap_servers=self.rig.server.address, request_timeout_ms=ANSWER_MS)
        await client.start()
        try:
            (about,) = await client.describe_topics([self.rig.topic])
        except KafkaError:
            return []
        finally:
            await client.close()
        found: list[dict[str, Any]] = about["partitions"]
        return found

    async def leader(self) -> KafkaServer:
        """The node that leads the first partition."""
        (first, *_) = sorted(await self.partitions(), key=lambda partition: int(partition["partition"]))
        leader: KafkaServer = self.nodes[first["leader"] - 1]
        return leader

    async def led_without(self, node: KafkaServer) -> None:
        """Return when others lead all partitions. From now on, tests ask one of them."""
        self.rig.server = next(other for other in self.nodes if other is not node)
        number = self.nodes.index(node) + 1

        async def are_led() -> bool:
            found = await self.partitions()
            return bool(found) and all(partition["leader"] not in {-1, number} for partition in found)

        await wait_until(are_led, "other leaders", PATIENCE)

    async def in_step(self) -> None:
        """Return when each copy has all that is acked."""

        async def are_in_step() -> bool:
            found = await self.partitions()
            return bool(found) and all(len(partition["isr"]) == len(self.nodes) for partition in found)

        await wait_until(are_in_step, "copies in step", PATIENCE)
