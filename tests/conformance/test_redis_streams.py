"""What the Redis sink does besides what all sinks do: each message once, by places; streams; servers that move."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from bridge.cloudevents import Encoder
from bridge.commands.embedded import free_port
from bridge.contracts import Batch, Message, Origin, Run, Session
from bridge.errors import Refused
from bridge.expiration import GapRecord
from bridge.limits import WireLimits
from bridge.sinks.redis.keys import memory_of
from tests.support.brokers.caller import Caller, TakenLater, Tally
from tests.support.brokers.redis_rig import STREAM, RedisRig
from tests.support.brokers.rigs import batches, deliver, ids, messages, refused, works
from tests.support.servers import RedisServer, wait_until


@pytest.fixture
async def rig() -> AsyncIterator[RedisRig]:
    async with RedisRig() as made:
        yield made


async def publish(sink: Caller, batch: Sequence[Message], *runs: Run) -> Tally:
    """With places of the test's own."""
    session, tally = await sink.sink.connect(), Tally()
    try:
        await session.publish(Batch(batch, runs), tally)
    finally:
        await session.close()
    return tally


async def test_a_message_has_fields_as_kafka_has_headers_its_key_and_its_body(rig: RedisRig) -> None:
    [share] = messages(1)
    [binary] = messages(1, first=1, mode="binary")
    gap = Encoder("/redis", 0, "structured").encode(GapRecord("3" * 32, "here:6379", 0, 1, "start", None, 0, 0))
    found = await rig.published([share, binary, gap])
    assert [(message.key, message.body) for message in found] == [
        (message.key, message.body) for message in (share, binary, gap)
    ]
    assert found[0].headers == {"ce_id": share.id, "content-type": "application/cloudevents+json"}
    assert found[1].headers == {
        "ce_id": binary.id,
        "content-type": "application/json",
        **{f"ce_{name}": value for name, value in binary.attributes.items()},
    }
    assert found[2].key == b"_gap"


async def test_a_stream_for_each_prefix_is_named_after_it(rig: RedisRig) -> None:
    keys = [b"share:1", b"cart:1", b"_gap:1", b"a{b}:1", b"x" * 1000, b""]
    batch = messages(0, keys=keys)
    gap = Encoder("/redis", 0, "structured").encode(GapRecord("3" * 32, "here:6379", 0, 1, "start", None, 0, 0))
    async with rig.opened(sink_redis_stream="{db}:gone:{prefix}") as sink:
        await sink.publish([*batch, gap])
    async with rig.client() as client:
        streams = {key async for key in client.scan_iter(_type="stream")}
    assert {
        b"0:gone:share",
        b"0:gone:cart",
        b"0:gone:%5Fgap",
        b"0:gone:_gap",
        b"0:gone:a%7Bb%7D",
        b"0:gone:_",
    } < streams
    assert len(streams) == len(batch) + 1
    assert max(map(len, streams)) <= 220
    assert await rig.stored(b"0:gone:share") == [batch[0].id]


async def test_a_stream_is_trimmed_to_about_its_length(rig: RedisRig) -> None:
    async with rig.opened(sink_redis_maxlen=500) as sink:
        for batch in batches(10, 500):
            await sink.publish(batch)
    stored = await rig.stored()
    assert 500 <= len(stored) < 1500
    assert stored[-500:] == ids(batches(10, 500)[-1])


# Each once.


async def test_a_repeat_is_acked_and_not_appended_in_whatever_part_it_comes(rig: RedisRig) -> None:
    batch = messages(9)
    sink = rig.sink()
    await publish(sink, batch[:6], Run(0, b"7-1", 0, 4), Run(0, b"7-2", 0, 2))
    repeated = await publish(sink, batch[2:5], Run(0, b"7-1", 2, 2), Run(0, b"7-2", 0, 1))
    grown = await publish(sink, batch[5:], Run(0, b"7-2", 1, 1), Run(0, b"7-10", 0, 3))
    assert (sorted(repeated.acks), sorted(grown.acks)) == ([0, 1, 2], [0, 1, 2, 3])
    assert await rig.stored() == ids(batch)


async def test_shards_epochs_and_ledgers_have_places_of_their_own(rig: RedisRig) -> None:
    """An epoch whose fence is lower: the clock of the source's new primary is behind."""
    batch = messages(6)
    sink, other = rig.sink(), rig.sink(namespace="another")
    await publish(sink, batch[:1], Run(0, b"9-5", 3, 1))
    await publish(sink, batch[1:2], Run(1, b"9-1", 0, 1))
    await publish(sink, batch[2:3], Run(0, b"8-1", 0, 1))
    await publish(other, batch[3:4], Run(0, b"9-1", 0, 1))
    assert await rig.stored() == ids(batch[:4])


async def test_an_entry_that_another_ledger_has_adopted_keeps_its_place(rig: RedisRig) -> None:
    [message] = messages(1)
    sink = rig.sink()
    await publish(sink, [message], Run(0, b"7-3", 0, 1))
    adopted = await publish(sink, [message], Run(2, b"9-1", 0, 1, Origin.of(0, b"7-3")))
    assert (adopted.acks, await rig.stored()) == ([0], [message.id])


async def test_what_was_given_up_and_passed_over_is_not_taken_for_appended(rig: RedisRig) -> None:
    """By delivery, before the bridge is killed: what it made a dead letter in memory comes again, and is no repeat."""
    batch = messages(3)
    sink = rig.sink()
    async with rig.client() as client:
        await publish(sink, batch[:1], Run(0, b"7-1", 0, 1))
        await client.rename(STREAM, "aside")
        await client.set(STREAM, "")
        session, tally = await rig_session(rig, sink), Tally()
        await session.publish(Batch(batch[1:2], [Run(0, b"7-2", 0, 1)]), tally)
        assert list(tally.refusals) == [0]
        await client.rename("aside", STREAM)
        await session.publish(Batch(batch[2:], [Run(0, b"7-3", 0, 1)]), Tally())
        await session.close()
        assert await rig.stored() == [batch[0].id, batch[2].id]
        for _ in range(2):  # a bridge that is started again
            tally = await publish(rig.sink(), batch[1:], Run(0, b"7-2", 0, 1), Run(0, b"7-3", 0, 1))
            assert sorted(tally.acks) == [0, 1]
    assert await rig.stored() == [batch[0].id, batch[2].id, batch[1].id]


async def rig_session(rig: RedisRig, sink: Caller) -> Session:
    """A session that was made before the key held something else."""
    async with rig.client() as client:
        await client.rename(STREAM, "other")
        session = await sink.sink.connect()
        await client.rename("other", STREAM)
    return session


async def test_lines_of_which_nothing_came_for_long_are_forgotten(rig: RedisRig) -> None:
    async with rig.client() as client:
        await client.hset(memory_of(STREAM), mapping={f"x:0:{fence}": "1 0 1700000000" for fence in range(200)})
        await client.hset(memory_of(STREAM), "x:1:7", "1 0 99999999999")
        await works(rig.sink())
        left = await client.hkeys(memory_of(STREAM))
    assert len(left) == 2
    assert b"x:1:7" in left


async def test_killed_and_frozen_servers_have_each_message_once(rig: RedisRig) -> None:
    wanted = batches(20, 500)
    async with rig.opened() as sink:
        for round_ in range(3):
            delivering = [asyncio.create_task(deliver(sink, batch)) for batch in wanted]
            await asyncio.sleep(0.05 * round_)  # another moment each time
            rig.server.kill()
            rig.server.start()
            await asyncio.gather(*delivering)
    assert sorted(await rig.stored()) == sorted(id_ for batch in wanted for id_ in ids(batch))


# What the server refuses.


async def test_a_full_server_refuses_until_there_is_room(rig: RedisRig) -> None:
    batch = messages(10)
    async with rig.opened() as sink, rig.client() as client:
        await sink.publish(batch[:5])
        await client.config_set("maxmemory", "1")
        with pytest.raises(TakenLater, match="maxmemory"):
            await sink.publish(batch)
        assert sink.connected
        await client.config_set("maxmemory", "0")
        await sink.publish(batch)
    assert await rig.stored() == ids(batch)


async def test_a_key_of_another_type_is_refused_before_and_while_it_serves(rig: RedisRig) -> None:
    async with rig.client() as client:
        await client.set(STREAM, "")
        await refused(rig.sink(), "the key expired holds something else than a stream; name another one")
        async with rig.opened(sink_redis_stream="{prefix}") as sink:
            await client.set("share", "")
            tally = Tally()
            await sink.publish_with(tally, messages(2, keys=[b"share:1", b"session:1"]))
            assert ("WRONGTYPE" in tally.refusals[0], tally.alone, tally.acks) == (True, {0}, [1])
            await client.delete("share")
            await sink.publish(messages(1))


async def test_a_server_that_became_a_replica_ends_the_session(rig: RedisRig) -> None:
    async with rig.opened(WireLimits(primary_check=0.1)) as sink, rig.client() as client:
        await client.replicaof("127.0.0.1", "1")
        await wait_until(lambda: not sink.connected)
        with pytest.raises(Refused, match=r"is no primary .*: point BRIDGE_SINK_REDIS_URL at the primary"):
            await sink.open()
        await client.replicaof("NO", "ONE")
        await deliver(sink, messages(1))
    assert await rig.stored() == ids(messages(1))


async def test_a_login_that_is_refused_names_the_sinks_url_and_no_secret(rig: RedisRig) -> None:
    url = rig.server.url.replace("://", "://ann:hunter2@")
    await refused(rig.sink(sink_redis_url=url), "BRIDGE_SINK_REDIS_URL")


async def test_a_user_with_the_documented_rights_is_enough(rig: RedisRig) -> None:
    async with rig.client() as client:
        await client.execute_command(  # type: ignore[no-untyped-call]
            "ACL SETUSER ann on >hunter2 ~expired ~{expired}:appended +evalsha +script|load +xadd +hget +hset +hdel"
            " +hexists +hlen +hgetall +time +type +ping +info +client|setname"
        )
    await works(rig.sink(sink_redis_url=rig.server.url.replace("://", "://ann:hunter2@")))


async def test_a_source_and_a_sink_of_one_server_share_its_login(rig: RedisRig) -> None:
    shared = rig.sink(sink_redis_url=None, redis_url=rig.server.url)
    await works(shared)
    assert await rig.stored() == ids(messages(1))


async def test_over_tls_with_a_certificate_and_the_files_that_serve_the_source_too(certificates: Path) -> None:
    pair = {"tls-cert-file": certificates / "server.pem", "tls-key-file": certificates / "server.key"}
    port = free_port()
    tls = {name: str(file) for name, file in (pair | {"tls-ca-cert-file": certificates / "ca.pem"}).items()}
    rig = RedisRig(
        sink_redis_url=f"rediss://127.0.0.1:{port}",
        redis_tls_ca_file=certificates / "ca.pem",
        redis_tls_cert_file=certificates / "client.pem",
        redis_tls_key_file=certificates / "client.key",
    )
    rig.server = RedisServer({**tls, "tls-port": str(port)})
    async with rig:
        await works(rig.sink())
        await refused(rig.sink(redis_tls_ca_file=certificates / "stranger.pem"), "not trusted")
        assert await rig.stored() == ids(messages(1))
