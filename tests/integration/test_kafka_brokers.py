"""A Kafka of three nodes: a leader is killed, and another one frozen, while keys expire. Each expiration is stored."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from tests.support.deployments.kafka_cluster import KafkaClusterDeployment, cluster_of
from tests.support.deployments.scene import keys
from tests.support.servers import PATIENCE, RedisServer, start

COUNT = 200
SPAN_MS = 4000
"""Longer than the others take to elect leaders."""


async def expiring(deployment: KafkaClusterDeployment, first: int) -> None:
    """Set keys that expire one after the other from now on; the ledger knows of them."""
    for group in range(20):
        await deployment.set(keys(COUNT // 20, first + group * COUNT // 20), 300 + group * SPAN_MS // 20)


@pytest.mark.cluster
@pytest.mark.slow(40)
@pytest.mark.timeout(240)
async def test_on_kafka_nothing_is_lost_when_a_leader_is_killed_and_then_another_one_freezes() -> None:
    """Nor stored twice, in transactions. A bridge with and one without them have the same brokers, because these cost
    more than all that happens here. Each node leads some of the partitions of either topic.
    """  # noqa: D205 - one sentence
    settings = {"BRIDGE_KAFKA_DEDUPLICATION": "transaction"}
    async with (
        cluster_of(3) as nodes,
        KafkaClusterDeployment.on(nodes, RedisServer) as plain,
        KafkaClusterDeployment.on(nodes, RedisServer, settings=settings) as once,
    ):
        both = plain, once
        bridges = await each(both, KafkaClusterDeployment.ready_bridge)
        await each(both, KafkaClusterDeployment.in_step)

        await each(both, lambda deployment: expiring(deployment, 0))
        killed = await plain.leader()
        killed.kill()
        await each(both, lambda deployment: deployment.led_without(killed))
        await each(both, KafkaClusterDeployment.delivered)
        await start(killed)
        await each(both, KafkaClusterDeployment.in_step)

        await each(both, lambda deployment: expiring(deployment, COUNT))
        frozen = await once.leader()
        frozen.pause()
        try:
            await each(both, lambda deployment: deployment.led_without(frozen))
            await each(both, lambda deployment: deployment.set(keys(COUNT, 2 * COUNT)))
            await each(both, KafkaClusterDeployment.delivered)
        finally:
            frozen.resume()
        await each(both, KafkaClusterDeployment.in_step)
        await each(both, lambda deployment: deployment.set(keys(COUNT, 3 * COUNT)))
        await each(both, KafkaClusterDeployment.delivered)
        for bridge in bridges:
            await bridge.ready(PATIENCE)


async def each(
    deployments: Iterable[KafkaClusterDeployment], act: Callable[[KafkaClusterDeployment], Awaitable[Any]]
) -> list[Any]:
    """Do it in all of them, side by side."""
    return await asyncio.gather(*map(act, deployments))
