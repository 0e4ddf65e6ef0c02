"""What the Kafka sink does when one of two brokers fails."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from bridge.errors import NotConnected
from bridge.limits import KafkaLimits
from tests.support.brokers.caller import Tally
from tests.support.brokers.kafka import KafkaServer
from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.brokers.rigs import batches, deliver, ids, messages
from tests.support.servers import wait_until


@pytest.fixture
async def rig(kafka_server: KafkaServer) -> AsyncIterator[KafkaRig]:
    async with KafkaRig(kafka_server) as made:
        yield made


@pytest.fixture
async def second_broker(rig: KafkaRig, shared_second_broker: KafkaServer) -> AsyncIterator[KafkaServer]:
    await wait_until(lambda: rig.has_brokers(2))
    yield shared_second_broker
    shared_second_broker.resume()


async def test_a_topic_that_acks_nothing_for_long_costs_the_producer_and_nothing_else(
    rig: KafkaRig, second_broker: KafkaServer
) -> None:
    await rig.create(replicas={0: [1, 2]}, min_insync_replicas="2")
    async with rig.opened(KafkaLimits(request=1, stall=1)) as sink:
        second_broker.pause()
        batch = messages(100)
        with pytest.raises(NotConnected, match=r"nothing was acked for 1 s, though brokers answer"):
            await sink.publish(batch)
        second_broker.resume()
        await deliver(sink, batch)
    assert set(await rig.stored()) == set(ids(batch))


async def test_a_partition_without_a_leader_is_refused_and_the_others_flow(
    rig: KafkaRig, second_broker: KafkaServer
) -> None:
    await rig.create(replicas={0: [1], 1: [2]})
    batch = messages(200)
    async with rig.opened(KafkaLimits(request=1)) as sink:
        second_broker.kill()
        try:
            refused = Tally()
            async with asyncio.timeout(60):
                while not refused.refusals:
                    await sink.open()
                    refused = Tally()
                    with contextlib.suppress(NotConnected):  # what was sent to it when it died may have been stored
                        await sink.publish_with(refused, batch)
            assert "has no leader" in next(iter(refused.refusals.values()))
            assert 0 < len(refused.acks) < len(batch)
            assert sink.connected
            await sink.publish([batch[index] for index in refused.acks[:10]])
        finally:
            second_broker.start()
        await deliver(sink, [batch[index] for index in refused.refusals])
    assert set(await rig.stored()) == set(ids(batch))


async def test_replicas_that_are_asked_for_must_have_what_is_acked(rig: KafkaRig, second_broker: KafkaServer) -> None:
    async with rig.opened(kafka_replication=2) as sink:
        await sink.publish(messages(1))
    assert (await rig.described())[1]["min.insync.replicas"] == "1"
    async with rig.opened(kafka_topic=f"{rig.topic}-single", kafka_replication=1):
        assert "has one replica: what is acked is lost with its broker" in rig.observed.warnings[-1]


async def test_what_other_partitions_have_taken_is_acked_though_the_session_ends(
    rig: KafkaRig, second_broker: KafkaServer
) -> None:
    await rig.create(replicas={0: [1], 1: [2]})
    batch = messages(200)
    async with rig.opened(KafkaLimits(request=1)) as sink:
        second_broker.pause()
        tally = Tally()
        with pytest.raises(NotConnected):
            await sink.publish_with(tally, batch)
        assert 0 < len(tally.acks) < len(batch)
        second_broker.resume()
        await deliver(sink, [message for index, message in enumerate(batch) if index not in tally.acks])
    first = [record.key for record in await rig.records() if record.partition == 0]
    assert 0 < len(first) == len(set(first))
    assert set(await rig.stored()) == set(ids(batch))


async def test_a_leader_election_costs_nothing(rig: KafkaRig, second_broker: KafkaServer) -> None:
    await rig.create(replicas={0: [2, 1], 1: [1, 2], 2: [2, 1]})
    wanted = batches(40, 500)
    async with rig.opened() as sink:
        delivering = [asyncio.create_task(deliver(sink, batch)) for batch in wanted[:20]]
        await asyncio.wait(delivering, return_when=asyncio.FIRST_COMPLETED)
        second_broker.pause()  # else it may have acked everything before it is killed
        delivering += [asyncio.create_task(deliver(sink, batch)) for batch in wanted[20:]]
        await asyncio.sleep(0)
        second_broker.kill()
        await asyncio.gather(*delivering)
    assert sorted(await rig.stored()) == sorted(id_ for batch in wanted for id_ in ids(batch))
    assert sink.ends == []
    assert "min.insync.replicas" in rig.observed.warnings[0]
