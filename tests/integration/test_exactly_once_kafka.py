"""Each expiration once for consumers that read what is committed, with `BRIDGE_KAFKA_DEDUPLICATION=transaction`.

ONCE_TURNS (how often bridge and broker are killed) and ONCE_KEYS (that expire each time) make it larger.
"""

import os

import pytest

from bridge.redis.ledger.runner import digest
from tests.support.brokers.kafka import KafkaServer
from tests.support.deployments.kafka import KafkaDeployment
from tests.support.deployments.scene import DURABLE, keys
from tests.support.proxy import TO_SERVER, Action
from tests.support.servers import RedisServer

LARGE = "ONCE_TURNS" in os.environ
"""Else the broker is killed every other time."""
TURNS = int(os.environ.get("ONCE_TURNS", "5"))
OF_A_TURN = int(os.environ.get("ONCE_KEYS", "300"))
pytestmark = [pytest.mark.unmeasured, pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(1800 if LARGE else 300)]
SETTINGS = {"BRIDGE_KAFKA_DEDUPLICATION": "transaction"}
SETTLE = digest("settle")


async def test_with_bridge_and_broker_killed_again_and_again(kafka_server: KafkaServer) -> None:
    """The bridge each time when messages are committed, and not settled; the broker while they are on their way."""
    if LARGE:  # one that has much to recover, on a machine that has much to do
        kafka_server.start_seconds = 300.0
    async with KafkaDeployment.of(RedisServer, kafka_server, redis=DURABLE, settings=SETTINGS) as deployment:
        for turn in range(TURNS):
            bridge = await deployment.ready_bridge()
            await deployment.settled()  # the start's gap record
            unsettled = deployment.redis_link.break_on(TO_SERVER, SETTLE, Action.DROP)
            await deployment.set(keys(OF_A_TURN, start=turn * OF_A_TURN))
            await unsettled.reached(60)
            bridge.kill()
            if turn % 2 or LARGE:
                kafka_server.kill()
                kafka_server.start()
            deployment.flow()
            await deployment.expire_lease()
        await deployment.ready_bridge()
        assert len(await deployment.delivered(120)) == TURNS * OF_A_TURN


async def test_with_two_bridges_of_which_one_is_frozen_within_a_transaction_and_goes_on(
    kafka_server: KafkaServer,
) -> None:
    """What it had sent arrives when the other one has long committed the same."""
    settings = {**SETTINGS, "BRIDGE_NAMESPACE": "expiry-bridge"}
    async with KafkaDeployment.of(RedisServer, kafka_server, redis=DURABLE, settings=settings) as deployment:
        frozen = await deployment.ready_bridge()
        await deployment.settled()
        on_their_way = deployment.broker_link.break_on(TO_SERVER, b"share:", Action.HOLD)
        await deployment.set(keys(OF_A_TURN))
        await on_their_way.reached(60)
        await deployment.claimed(OF_A_TURN)
        frozen.pause()
        await deployment.expire_lease()
        await deployment.ready_bridge(direct=True)
        await deployment.delivered(120)
        on_their_way.release()
        frozen.resume()
        await deployment.outdone(frozen)
        await deployment.set(keys(OF_A_TURN, start=OF_A_TURN))
        assert len(await deployment.delivered(120)) == 2 * OF_A_TURN
