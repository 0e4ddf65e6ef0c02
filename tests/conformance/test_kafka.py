"""What the Kafka sink does when Kafka, or the way to it, fails."""

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

import pytest
from aiokafka.partitioner import DefaultPartitioner

from bridge.contracts import Message
from bridge.errors import ConfigurationError, NotConnected
from bridge.limits import KafkaLimits
from tests.support.brokers.caller import Caller
from tests.support.brokers.kafka import KafkaServer
from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.brokers.rigs import batches, deliver, ids, messages
from tests.support.proxy import TO_CLIENT, Connection, Proxy
from tests.support.servers import wait_until

DEATH_SECONDS = 5.0
"""Generous: two are promised."""


@pytest.fixture
async def rig(kafka_server: KafkaServer) -> AsyncIterator[KafkaRig]:
    async with KafkaRig(kafka_server) as made:
        yield made


@pytest.fixture
async def sink(rig: KafkaRig) -> AsyncIterator[Caller]:
    async with rig.opened() as made:
        yield made


@pytest.fixture
async def proxy(kafka_server: KafkaServer) -> AsyncIterator[Proxy]:
    async with kafka_server.proxy() as made:
        yield made


@pytest.fixture
async def proxied(rig: KafkaRig, proxy: Proxy) -> AsyncIterator[Caller]:
    """A sink, impatient for answers, that sees the broker through the proxy."""
    async with rig.opened(KafkaLimits(request=1), kafka_bootstrap_servers=[f"127.0.0.1:{proxy.port}"]) as made:
        yield made


def ids_of(batches_: list[list[Message]]) -> list[str]:
    return [id_ for batch in batches_ for id_ in ids(batch)]


# What is stored


async def test_a_message_has_the_key_and_the_headers_of_the_binding(rig: KafkaRig, sink: Caller) -> None:
    (structured,) = messages(0, keys=[b"share:7f3a"])
    (binary,) = messages(0, keys=["ü:\n".encode()], first=1, mode="binary")
    await sink.publish([structured])
    await sink.publish([binary])
    one, other = await rig.records()
    assert (one.key, one.value) == (structured.key, structured.body)
    assert one.headers == (("ce_id", structured.id.encode()), ("content-type", b"application/cloudevents+json"))
    assert (other.key, other.value) == (binary.key, binary.body)
    assert dict(other.headers) == {
        "content-type": b"application/json",
        **{f"ce_{name}": value.encode() for name, value in binary.attributes.items()},
    }


async def test_a_key_goes_where_other_clients_would_send_it(rig: KafkaRig) -> None:
    keys = [b"", b"a", b"\xff", b"share:7f3a", "ü".encode() * 99, *(b"key:%d" % number for number in range(200))]
    async with rig.opened(kafka_partitions=7) as sink:
        await sink.publish(messages(0, keys=keys))
    wanted = {key: DefaultPartitioner()(key, list(range(7)), []) for key in keys}
    assert {record.key: record.partition for record in await rig.records()} == wanted
    assert set(wanted.values()) == set(range(7))


@pytest.mark.parametrize("compression", ["none", "gzip", "lz4", "snappy", "zstd"])
async def test_it_can_be_compressed(
    rig: KafkaRig, compression: Literal["none", "gzip", "lz4", "snappy", "zstd"]
) -> None:
    batch = messages(1000)
    async with rig.opened(kafka_compression=compression) as sink:
        await sink.publish(batch)
    assert [record.value for record in await rig.records()] == [message.body for message in batch]


async def test_without_its_package_a_compression_is_a_configuration_error(
    rig: KafkaRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    rig.sink(kafka_compression="gzip")
    with pytest.raises(
        ConfigurationError, match=r"BRIDGE_KAFKA_COMPRESSION: zstd .*expiry-bridge\[kafka-compression\]"
    ):
        rig.sink(kafka_compression="zstd")


async def test_the_event_loop_turns_while_a_large_batch_is_published(sink: Caller) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    turning = asyncio.create_task(turn(), name="turn")
    await sink.publish(messages(5000))
    turning.cancel()
    assert turns > 30


# When the broker fails


async def test_through_a_kill_nothing_is_lost_and_a_key_stays_in_order(rig: KafkaRig) -> None:
    keys = [b"key:%d" % number for number in range(600)]
    rounds = [messages(0, keys=keys, first=number * 1000) for number in range(20)]
    under_way = asyncio.Event()

    async def deliver_in_turn(sink: Caller, first: int) -> None:
        for batch in rounds:  # as delivery does: no key is under way twice
            await deliver(sink, batch[first : first + 200])
            under_way.set()

    async with rig.opened(kafka_partitions=3) as sink:
        delivering = [asyncio.create_task(deliver_in_turn(sink, first)) for first in (0, 200, 400)]
        await under_way.wait()
        rig.server.kill()
        assert not all(task.done() for task in delivering)
        rig.server.start()
        await asyncio.gather(*delivering)
    by_key: dict[bytes, dict[str, None]] = {key: {} for key in keys}
    for record in await rig.records():
        by_key[record.key][dict(record.headers)["ce_id"].decode()] = None  # the first copy of each counts
    for index, key in enumerate(keys):
        assert list(by_key[key]) == [batch[index].id for batch in rounds]


async def test_a_broker_that_dies_is_noticed_and_found_again_where_it_comes_back(rig: KafkaRig) -> None:
    new = KafkaServer().address
    async with rig.opened(kafka_bootstrap_servers=[rig.server.address, new]) as sink:
        wanted = batches(20, 500)
        rig.freeze()
        publishing = [asyncio.create_task(sink.publish(batch)) for batch in wanted]
        await asyncio.sleep(0)
        rig.server.kill()
        async with asyncio.timeout(DEATH_SECONDS):
            results = await asyncio.gather(*publishing, return_exceptions=True)
        assert all(isinstance(result, NotConnected) for result in results)
        assert not sink.connected
        with pytest.raises(NotConnected, match="cannot be reached"):
            await sink.open()
        rig.server.port = int(new.partition(":")[2])
        rig.server.start()
        await asyncio.gather(*(deliver(sink, batch) for batch in wanted))
    assert set(await rig.stored()) == set(ids_of(wanted))
    assert sink.ends == ["no broker answers"]


async def test_a_frozen_broker_is_noticed(rig: KafkaRig) -> None:
    async with rig.opened(KafkaLimits(request=1)) as sink:
        batch = messages(100)
        rig.freeze()
        with pytest.raises(NotConnected, match="no broker answers"):
            await sink.publish(batch)
        assert not sink.connected
        rig.thaw()
        await deliver(sink, batch)
    assert set(await rig.stored()) == set(ids(batch))


async def test_a_lost_ack_is_made_up_for_and_its_batch_is_stored_once(
    rig: KafkaRig, proxy: Proxy, proxied: Caller
) -> None:
    stall = proxy.stall(TO_CLIENT)
    batch = messages(100)
    publishing = asyncio.create_task(proxied.publish(batch))
    await wait_until(lambda: _stored(rig, 100))
    proxy.cut()
    stall.release()
    await publishing
    assert await rig.stored() == ids(batch)
    assert proxied.ends == []


async def test_a_slow_broker_gets_everything_once(rig: KafkaRig, proxy: Proxy, proxied: Caller) -> None:
    proxy.delay = 0.1
    wanted = batches(10, 100)
    await asyncio.gather(*(deliver(proxied, batch) for batch in wanted))
    assert sorted(await rig.stored()) == sorted(ids_of(wanted))
    assert proxied.ends == []


async def test_close_while_publishing_ends_the_batch_in_not_connected(proxy: Proxy, proxied: Caller) -> None:
    proxy.stall(TO_CLIENT)
    publishing = asyncio.create_task(proxied.publish(messages(1)))
    await asyncio.sleep(0)
    await proxied.close()
    with pytest.raises(NotConnected, match="closed"):
        await publishing


@pytest.mark.parametrize("answers", range(8))
async def test_a_connect_that_gets_no_further_answer_can_be_cancelled(
    rig: KafkaRig, proxy: Proxy, answers: int
) -> None:
    sink = rig.sink(kafka_bootstrap_servers=[f"127.0.0.1:{proxy.port}"])
    seen = 0

    def enough(_: Connection) -> bool:
        nonlocal seen
        seen += 1
        return seen > answers

    stall = proxy.stall(TO_CLIENT, enough)
    opening = asyncio.create_task(sink.open())
    await wait_until(lambda: seen > answers)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not sink.connected
    stall.release()
    await sink.open()
    await sink.close()


async def test_a_broker_that_names_an_address_nobody_listens_on_is_not_connected(
    rig: KafkaRig,
) -> None:
    sink = rig.sink(KafkaLimits(start=0.5), kafka_bootstrap_servers=[f"127.0.0.1:{rig.server.proxied_port}"])
    with pytest.raises(NotConnected, match=r"advertised\.listeners"):
        await sink.open()


async def test_a_server_that_says_nothing_is_not_connected(rig: KafkaRig) -> None:
    rig.freeze()
    with pytest.raises(NotConnected, match="no answer"):
        await rig.sink(KafkaLimits(greeting=0.5)).open()


async def _stored(rig: KafkaRig, count: int) -> bool:
    return len(await rig.stored()) == count
