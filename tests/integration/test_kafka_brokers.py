"""A Kafka of three nodes: a leader is killed, and another one frozen, while keys expire. Each expiration is stored."""

import pytest

from tests.support.deployments.kafka_cluster import KafkaClusterDeployment
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
@pytest.mark.kafka
@pytest.mark.timeout(240)
@pytest.mark.parametrize("deduplication", ["none", "transaction"])
async def test_on_kafka_nothing_is_lost_when_a_leader_is_killed_and_then_another_one_freezes(
    deduplication: str,
) -> None:
    """Nor stored twice, in transactions."""
    settings = {"BRIDGE_KAFKA_DEDUPLICATION": deduplication}
    async with KafkaClusterDeployment.with_cluster(RedisServer, settings=settings) as deployment:
        bridge = await deployment.ready_bridge()
        await deployment.in_step()

        await expiring(deployment, 0)
        killed = await deployment.leader()
        killed.kill()
        await deployment.led_without(killed)
        await deployment.delivered()
        await start(killed)
        await deployment.in_step()

        await expiring(deployment, COUNT)
        frozen = await deployment.leader()
        frozen.pause()
        try:
            await deployment.led_without(frozen)
            await deployment.set(keys(COUNT, 2 * COUNT))
            await deployment.delivered()
        finally:
            frozen.resume()
        await deployment.in_step()
        await deployment.set(keys(COUNT, 3 * COUNT))
        await deployment.delivered()
        await bridge.ready(PATIENCE)
