"""Which topic the Kafka sink writes to, and what it makes of one that is missing, or that takes not everything."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest

from bridge.errors import Refused
from bridge.limits import KafkaLimits
from tests.support.brokers.caller import Rejected, TakenLater, Tally
from tests.support.brokers.kafka import KafkaServer
from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.brokers.rigs import deliver, ids, messages
from tests.support.servers import wait_until


@pytest.fixture
async def rig(kafka_server: KafkaServer) -> AsyncIterator[KafkaRig]:
    async with KafkaRig(kafka_server) as made:
        yield made


# Provisioning


@pytest.mark.parametrize(
    ("settings", "partitions", "configs"),
    [
        ({"kafka_partitions": 6}, 6, {}),
        ({"kafka_partitions": -1, "kafka_replication": 1}, 1, {}),
        ({"kafka_partitions": 2, "kafka_retention_hours": 3}, 2, {"retention.ms": "10800000"}),
    ],
)
async def test_a_missing_topic_is_created_as_the_settings_say(
    rig: KafkaRig, settings: dict[str, Any], partitions: int, configs: dict[str, str]
) -> None:
    async with rig.opened(**settings) as sink:
        await sink.publish(messages(1))
    assert await rig.described() == (partitions, {"cleanup.policy": "delete", **configs})
    assert rig.observed.warnings == []


async def test_an_existing_topic_is_not_changed(rig: KafkaRig) -> None:
    await rig.create(retention_ms="5000")
    async with rig.opened(kafka_partitions=5, kafka_retention_hours=5) as sink:
        await sink.publish(messages(1))
    assert await rig.described() == (1, {"retention.ms": "5000"})


async def test_two_sinks_may_create_the_topic_at_once(rig: KafkaRig) -> None:
    sinks = [rig.sink() for _ in range(5)]
    await asyncio.gather(*(sink.open() for sink in sinks))
    await asyncio.gather(*(sink.publish(messages(1)) for sink in sinks))
    for sink in sinks:
        await sink.close()
    assert len(await rig.stored()) == 5


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"kafka_provision": False}, "does not exist: create it, or set BRIDGE_KAFKA_PROVISION=true"),
        ({"kafka_replication": 99}, r"INVALID_REPLICATION_FACTOR, error 38.*BRIDGE_KAFKA_REPLICATION"),
    ],
)
async def test_a_topic_that_cannot_be_created_is_refused_with_the_remedy(
    rig: KafkaRig, settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(
        Refused, match=f"topic {rig.topic} does not exist.*{reason}" if settings.get("kafka_replication") else reason
    ):
        await rig.sink(**settings).open()


async def test_a_name_that_is_taken_with_an_underscore_is_refused(rig: KafkaRig) -> None:
    await rig.create(f"{rig.topic}_x")
    with pytest.raises(Refused, match=r"INVALID_TOPIC, error 17.*change BRIDGE_KAFKA_TOPIC"):
        await rig.sink(kafka_topic=f"{rig.topic}.x").open()


async def test_a_compacted_topic_is_warned_of(rig: KafkaRig) -> None:
    await rig.create(cleanup_policy="compact")
    async with rig.opened():
        pass
    assert len(rig.observed.warnings) == 1
    assert "is compacted" in rig.observed.warnings[0]


# Missing topics, and topics of prefixes


async def test_a_topic_that_is_deleted_is_created_again(rig: KafkaRig) -> None:
    batch = messages(100)
    async with rig.opened() as sink:
        await sink.publish(messages(10))
        await rig.delete()
        await deliver(sink, batch)
    assert set(await rig.stored()) == set(ids(batch))


async def test_a_topic_that_is_deleted_is_waited_for_where_the_sink_may_not_create_it(rig: KafkaRig) -> None:
    await rig.create()
    async with rig.opened(kafka_provision=False) as sink:
        await rig.delete()
        await wait_until(lambda: not sink.connected)
        with pytest.raises(Refused, match=f"topic {rig.topic} does not exist: create it, or set"):
            await sink.open()
        await rig.create()
        await deliver(sink, messages(10))
    assert await rig.stored() == ids(messages(10))


async def test_each_prefix_may_have_a_topic_of_its_own(rig: KafkaRig) -> None:
    batch = messages(0, keys=[b"share:1", b"a.b:1", b":", b"share:2", b"x" * 300])
    async with rig.opened(kafka_topic=f"{rig.topic}.{{prefix}}.{{db}}") as sink:
        await sink.publish(batch)
        await sink.publish(messages(0, keys=[b"share:3"], first=100))
    assert [record.key for record in await rig.records(f"{rig.topic}.share.0")] == [b"share:1", b"share:2", b"share:3"]
    assert [record.key for record in await rig.records(f"{rig.topic}.a_2Eb.0")] == [b"a.b:1"]
    assert [record.key for record in await rig.records(f"{rig.topic}._.0")] == [b":"]


async def test_a_prefix_whose_topic_cannot_be_created_is_rejected_and_all_else_is_stored(rig: KafkaRig) -> None:
    await rig.create(f"{rig.topic}_taken")  # Kafka takes a dot and an underscore for the same
    batch = messages(0, keys=[b"share:1", b"taken:1", b"share:2"])
    async with rig.opened(kafka_topic=f"{rig.topic}.{{prefix}}") as sink:
        for _ in range(2):
            with pytest.raises(Rejected) as caught:
                await sink.publish(batch)
            assert caught.value.reasons.keys() == {1}
            assert "INVALID_TOPIC" in caught.value.reasons[1]
            assert "taken" not in caught.value.reasons[1]
        assert sink.connected
    assert len(await rig.records(f"{rig.topic}.share")) == 4


async def test_a_prefix_whose_topic_stays_missing_is_rejected(rig: KafkaRig) -> None:
    limits = KafkaLimits(topic_missing=0.3)
    await rig.create(f"{rig.topic}.share")
    batch = messages(0, keys=[b"share:1", b"new:1", b"late:1"])
    async with rig.opened(limits, kafka_topic=f"{rig.topic}.{{prefix}}", kafka_provision=False) as sink:
        with pytest.raises(TakenLater, match="the message's topic does not exist"):
            await sink.publish(batch)
        await rig.create(f"{rig.topic}.late")
        with pytest.raises(Rejected, match="does not exist: create it, or set BRIDGE_KAFKA_PROVISION=true") as caught:
            await deliver(sink, batch)
        assert caught.value.reasons.keys() == {1}
    assert len(await rig.records(f"{rig.topic}.late")) == 1


# What is too large


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_what_is_too_large_is_rejected_and_all_else_is_stored(
    rig: KafkaRig, mode: Literal["structured", "binary"]
) -> None:
    await rig.create(max_message_bytes="7000")
    small = messages(100, mode=mode)
    model = small[0]._replace(id="0" * 32)
    async with rig.opened() as sink:
        with pytest.raises(Rejected) as caught:
            await sink.publish([model._replace(body=b"x" * 7000)])
        excess = int(caught.value.reasons[0].partition(" ")[0]) - 7000
        fits, does_not = (
            model._replace(body=b"x" * (7000 - excess)),
            model._replace(id="1" * 32, body=b"x" * (7001 - excess)),
        )
        with pytest.raises(Rejected) as caught:
            await sink.publish([*small[:50], does_not, fits, *small[50:]])
        reason = "7001 bytes as a Kafka record, and the topic takes 7000 (max.message.bytes)"
        assert caught.value.reasons == {50: reason}
        assert sink.connected
    assert sorted(await rig.stored()) == sorted(ids([*small, fits]))


async def test_a_limit_that_was_raised_meanwhile_counts(rig: KafkaRig) -> None:
    await rig.create(max_message_bytes="1000")
    async with rig.opened() as sink:
        await rig.configure(max_message_bytes="5000")
        batch = [messages(1)[0]._replace(body=b"x" * 3000)]
        await sink.publish(batch)
    assert await rig.stored() == ids(batch)


async def test_a_limit_that_was_lowered_meanwhile_is_learned(rig: KafkaRig) -> None:
    await rig.create(max_message_bytes="100000")
    async with rig.opened() as sink:
        await rig.configure(max_message_bytes="5000")
        batch = messages(200)
        await sink.publish(batch)
        assert sink.connected
    assert await rig.stored() == ids(batch)


# A topic that refuses


async def test_a_topic_that_refuses_all_records_stops_only_itself_and_takes_them_when_it_may(rig: KafkaRig) -> None:
    refusing = f"{rig.topic}.refusing"
    await rig.create(refusing, message_timestamp_before_max_ms="0")
    names = [b"refusing", *(b"t%d" % number for number in range(10))]
    for name in names[1:]:
        await rig.create(f"{rig.topic}.{name.decode()}")
    rounds = [messages(0, keys=[b"%b:%d" % (name, n) for name in names], first=n * 100) for n in range(5)]
    async with rig.opened(kafka_topic=f"{rig.topic}.{{prefix}}") as sink:
        for batch in rounds:
            tally = Tally()
            await sink.publish_with(tally, batch)
            assert sorted(tally.acks) == list(range(1, 11))
            assert "clock (INVALID_TIMESTAMP, error 32)" in tally.refusals[0]
        assert sink.connected
        assert await rig.records(refusing) == []
        rig.topic, topic = refusing, rig.topic
        await rig.configure(message_timestamp_before_max_ms="9223372036854775807")
        rig.topic = topic
        await sink.deliver([batch[0] for batch in rounds])
        assert sink.ends == []
    assert [record.key for record in await rig.records(refusing)] == [batch[0].key for batch in rounds]
    for name in names[1:]:
        assert len(await rig.records(f"{rig.topic}.{name.decode()}")) == 5


async def test_what_the_topic_finds_too_large_is_found_among_the_others_without_a_new_producer(rig: KafkaRig) -> None:
    await rig.create(max_message_bytes="100000")
    async with rig.opened() as sink:
        await rig.configure(max_message_bytes="5000")
        batch = messages(60)
        batch[30] = batch[30]._replace(body=b"x" * 6000)
        with pytest.raises(Rejected, match="MESSAGE_SIZE_TOO_LARGE, error 10") as caught:
            await sink.publish(batch)
        assert caught.value.reasons.keys() == {30}
        assert sink.connected
    assert await rig.stored() == [id_ for index, id_ in enumerate(ids(batch)) if index != 30]
