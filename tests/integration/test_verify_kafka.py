"""`expiry-bridge verify` of a deployment that writes to Kafka."""

from collections.abc import AsyncIterator

import pytest

from bridge.commands.embedded import free_port
from tests.integration.oracle import HASTY, LONG, PATIENCE, QUICK, Verification, World
from tests.support.brokers.kafka import KafkaServer
from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.redis.commands import user_of
from tests.support.servers import RedisServer


@pytest.fixture
async def kafka_world(one_redis: RedisServer, kafka_server: KafkaServer) -> AsyncIterator[World]:
    """With a topic of its own, of several partitions."""
    rig = KafkaRig(kafka_server)
    settings = {
        "BRIDGE_REDIS_URL": one_redis.url,
        "BRIDGE_SINK": "kafka",
        "BRIDGE_KAFKA_BOOTSTRAP_SERVERS": kafka_server.address,
        "BRIDGE_KAFKA_TOPIC": rig.topic,
    }
    async with user_of(one_redis) as user:
        yield World(settings, user)


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_all_is_delivered_to_kafka_too(kafka_world: World, mode: str) -> None:
    world = World({**kafka_world.settings, "BRIDGE_CONTENT_MODE": mode}, kafka_world.user)
    async with world.bridge() as bridge:
        await bridge.ready(PATIENCE)
        before = await world.verified("--keys", "20", *QUICK[2:])
        found = await world.verified(*QUICK)
    assert before["delivered"] == 20
    assert (found["delivered"], found["missed"], found["duplicates"], found["false"]) == (200, 0, 0, 0)
    assert found["read_from"] == f"Kafka topic {world.settings['BRIDGE_KAFKA_TOPIC']}"
    assert found["lag_clocks"] == ["redis"]
    assert 0 < found["lag_ms"]["p50"] <= found["lag_ms"]["max"]


async def test_the_time_that_kafka_stored_a_message_is_taken_where_it_keeps_it(
    kafka_world: World, kafka_server: KafkaServer
) -> None:
    rig = KafkaRig(kafka_server)
    await rig.create(message_timestamp_type="LogAppendTime")
    world = World({**kafka_world.settings, "BRIDGE_KAFKA_TOPIC": rig.topic}, kafka_world.user)
    async with world.bridge() as bridge:
        await bridge.ready(PATIENCE)
        found = await world.verified("--keys", "20", *QUICK[2:])
    assert (found["delivered"], found["lag_clocks"]) == (20, ["broker"])
    assert found["lag_ms"]["p50"] > 0


async def test_a_topic_that_kafka_gets_with_the_first_message_is_read_from_its_beginning(kafka_world: World) -> None:
    topic = kafka_world.settings["BRIDGE_KAFKA_TOPIC"]
    world = World({**kafka_world.settings, "BRIDGE_KAFKA_TOPIC": f"{topic}.{{prefix}}"}, kafka_world.user)
    async with world.bridge() as bridge:
        await bridge.ready(PATIENCE)
        found = await world.verified("--keys", "20", *QUICK[2:])
    assert found["read_from"] == f"Kafka topic {topic}.expiry-bridge-verify"
    assert (found["delivered"], found["false"]) == (20, 0)


async def test_nothing_is_missed_if_kafka_is_killed_in_the_middle_and_started_again(
    kafka_world: World, kafka_server: KafkaServer
) -> None:
    async with kafka_world.bridge() as bridge:
        await bridge.ready(PATIENCE)
        async with kafka_world.verification(*LONG) as verification:
            await kafka_world.planted(41)
            kafka_server.kill()
            kafka_server.start()
            found = await verification.found(0)
    assert (found["delivered"], found["missed"], found["false"]) == (40, 0, 0)


async def test_everything_is_missed_if_no_bridge_writes_to_kafka(kafka_world: World) -> None:
    with Verification(kafka_world.settings) as verification:
        assert await verification.exited() == 1
        (line,) = verification.log().splitlines()
    assert "does not exist: check BRIDGE_KAFKA_TOPIC" in line

    async with kafka_world.bridge() as bridge:
        await bridge.ready(PATIENCE)
        assert await bridge.stop() == 0
    found = await kafka_world.verified("--keys", "20", *QUICK[2:], *HASTY, status=1)
    assert (found["delivered"], found["missed"]) == (0, 20)


async def test_a_kafka_that_cannot_be_reached_is_one_clear_line(one_redis: RedisServer) -> None:
    port = free_port()
    settings = {"BRIDGE_REDIS_URL": one_redis.url, "BRIDGE_SINK": "kafka"}
    with Verification(settings, "--kafka-bootstrap-servers", f"127.0.0.1:{port}") as verification:
        assert await verification.exited() == 1
        (line,) = verification.log().splitlines()
    assert f"Kafka at 127.0.0.1:{port} cannot be reached" in line
