"""What brokers say of their clocks when they are sent a record that no topic of producers' timestamps takes."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridge.clock import SystemClock
from bridge.limits import KafkaLimits
from bridge.settings import Settings
from bridge.sinks.kafka.clocks import AFTER_MAX, TIMESTAMP_TYPE, clocks_ahead, most_ahead_ms
from bridge.sinks.kafka.cluster import Cluster
from bridge.sinks.kafka.connect import connect, discard
from tests.support.brokers.kafka import KafkaServer
from tests.support.brokers.kafka_rig import KafkaRig

HOUR = 3600.0


@pytest.fixture
async def rig(kafka_server: KafkaServer) -> AsyncIterator[KafkaRig]:
    async with KafkaRig(kafka_server) as made:
        yield made


@asynccontextmanager
async def cluster(rig: KafkaRig) -> AsyncIterator[Cluster]:
    """A client's."""
    clock, limits = SystemClock(), KafkaLimits()
    producer = await connect(Settings.model_validate(rig.settings), clock, limits)
    try:
        yield Cluster(producer.client, clock, limits)
    finally:
        await discard(producer, clock, limits)


@pytest.mark.parametrize("ahead", [0, 2 * HOUR, -2 * HOUR])
async def test_a_broker_says_what_time_it_is_and_stores_nothing(rig: KafkaRig, ahead: float) -> None:
    await rig.create()
    async with cluster(rig) as brokers:
        (configs,) = (await brokers.describe([rig.topic], (TIMESTAMP_TYPE, AFTER_MAX))).values()
        limit_ms = most_ahead_ms(configs)
        assert limit_ms == HOUR * 1000
        found = await clocks_ahead(brokers, rig.topic, limit_ms, lambda: time.time() - ahead)
    ((broker, seconds),) = found.items()
    assert broker == rig.server.address
    assert seconds == pytest.approx(ahead, abs=5)
    assert await rig.records() == []


@pytest.mark.parametrize(
    ("kind", "limit", "most"),
    [
        ("CreateTime", "3600000", 3_600_000),
        ("LogAppendTime", "3600000", None),
        ("CreateTime", "9223372036854775807", None),
        (None, "3600000", None),
        ("CreateTime", None, None),
    ],
)
def test_where_a_record_of_the_future_might_be_stored_none_is_sent(
    kind: str | None, limit: str | None, most: int | None
) -> None:
    configs = {TIMESTAMP_TYPE: kind, AFTER_MAX: limit}
    assert most_ahead_ms({name: value for name, value in configs.items() if value is not None}) == most
