"""Only what expired is announced: no message of a key that went otherwise, and one of each time that it did expire.

How one shows that a message does *not* come, without waiting for it: a sentinel with a later deadline, whose message
comes after all that were due before it.
"""

import re
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis

from tests.support.contract import CANARY, LEASE, LEDGER, Arrived, id_of_deadline
from tests.support.deployments.arrivals import all_of, arrivals, everything_due, told
from tests.support.deployments.world import World, world
from tests.support.kinds import EACH_KIND
from tests.support.redis.commands import (
    Command,
    Word,
    deadline_after,
    recorded,
    redis_ms,
    run,
    set_for,
    set_known,
    user_of,
)
from tests.support.redis.evictions import evictions
from tests.support.servers import RedisServer, ValkeyServer, wait_until

pytestmark = [pytest.mark.both_kinds, pytest.mark.unmeasured]

# Milliseconds: time enough for the bridge to record a key, and for the test to take it away again.
RECORDED = 2000


@pytest.fixture(scope="module", params=EACH_KIND)
def shared(request: pytest.FixtureRequest) -> Iterator[World]:
    """The tests of this module tell themselves apart by the names of their keys."""
    with world(request.param) as made:
        yield made


def farewells(key: bytes) -> dict[str, list[Command]]:
    """How a key with a deadline can lose it, and not by expiring."""
    return {
        "DEL": [("DEL", key)],
        "UNLINK": [("UNLINK", key)],
        "GETDEL": [("GETDEL", key)],
        "RENAME": [("RENAME", key, key + b":elsewhere"), ("PERSIST", key + b":elsewhere")],
        "RENAME over it": [("SET", key + b":other", "v"), ("RENAME", key + b":other", key)],
        "COPY over it": [("SET", key + b":other", "v"), ("COPY", key + b":other", key, "REPLACE")],
        "MOVE": [("MOVE", key, 1)],
        "PERSIST": [("PERSIST", key)],
        "GETEX PERSIST": [("GETEX", key, "PERSIST")],
        "SET": [("SET", key, "w")],
        "GETSET": [("GETSET", key, "w")],
        "MSET": [("MSET", key, "w")],
        "SINTERSTORE of nothing": [("SINTERSTORE", key, b"nothing")],
        "SUNIONSTORE": [("SADD", b"some", "a"), ("SUNIONSTORE", key, b"some")],
        "Lua": [("EVAL", "return redis.call('DEL', KEYS[1])", 1, key)],
        "SET, then DEL": [("SET", key, "w"), ("DEL", key)],
        "DEL, then set again without": [("DEL", key), ("SET", key, "w")],
        "a later deadline": [("PEXPIRE", key, 600_000)],
        "a later deadline by SET": [("SET", key, "w", "EX", 600)],
        "deleted, then a later deadline": [("DEL", key), ("SET", key, "w", "EX", 600)],
    }


@pytest.mark.parametrize("atomic", [False, True], ids=["one by one", "in MULTI"])
async def test_a_key_that_goes_otherwise_before_its_deadline_is_not_announced(shared: World, *, atomic: bool) -> None:
    await shared.bridge.ready()
    names = {way: f"truth:{way}:{atomic}".encode() for way in farewells(b"")}
    async with user_of(shared.redis) as redis, arrivals(shared.nats) as arrived:
        deadlines = {key: await set_for(redis, key, RECORDED) for key in names.values()}
        for key, deadline_ms in deadlines.items():
            await recorded(redis, key, deadline_ms)
        for way, key in names.items():
            await deadline_after(redis, key, *farewells(key)[way], atomic=atomic)
        await everything_due(redis, arrived, max(deadlines.values()))
    assert [way for way, key in names.items() if key in told(arrived, names.values())] == []


async def test_a_key_that_was_never_recorded_before_it_went_is_not_announced(shared: World) -> None:
    await shared.bridge.ready()
    names = {way: f"brief:{way}".encode() for way in farewells(b"")}
    async with user_of(shared.redis) as redis, arrivals(shared.nats) as arrived:
        for way, key in names.items():
            await deadline_after(redis, key, ("SET", key, "v", "PX", 500), *farewells(key)[way])
        await everything_due(redis, arrived, await redis_ms(redis) + 500)
    assert [way for way, key in names.items() if key in told(arrived, names.values())] == []


async def test_a_collection_that_becomes_empty_is_not_announced(shared: World) -> None:
    await shared.bridge.ready()
    emptied: dict[bytes, list[Command]] = {
        b"emptied:list": [("RPUSH", b"emptied:list", "a"), ("LPOP", b"emptied:list")],
        b"emptied:hash": [("HSET", b"emptied:hash", "f", "v"), ("HDEL", b"emptied:hash", "f")],
        b"emptied:set": [("SADD", b"emptied:set", "a"), ("SREM", b"emptied:set", "a")],
        b"emptied:zset": [("ZADD", b"emptied:zset", 1, "a"), ("ZPOPMIN", b"emptied:zset")],
    }
    if isinstance(shared.redis, ValkeyServer):  # the last field expires, and with it the hash, before its own deadline
        hash_of_fields = b"emptied:fields"
        expire = ("HPEXPIRE", hash_of_fields, 1, "FIELDS", 1, "f")
        emptied[hash_of_fields] = [("HSET", hash_of_fields, "f", "v"), expire]
    async with user_of(shared.redis) as redis, arrivals(shared.nats) as arrived:
        deadlines = {}
        for key, (fill, _) in emptied.items():
            deadlines[key] = await deadline_after(redis, key, fill, ("PEXPIRE", key, RECORDED))
            await recorded(redis, key, deadlines[key])
        for _, empty in emptied.values():
            await run(redis, *empty)
        for key in emptied:
            await recorded(redis, key, None)
        await everything_due(redis, arrived, max(deadlines.values()))
    assert told(arrived, emptied) == {}


async def test_a_sliding_deadline_is_announced_only_when_it_stops_sliding(shared: World) -> None:
    await shared.bridge.ready()
    async with user_of(shared.redis) as redis, arrivals(shared.nats) as arrived:
        lifetime = 700
        # On a busy machine it may expire before it is to slide.
        while (deadline_ms := await slid(redis, arrived, session := b"sliding:%d" % lifetime, lifetime)) is None:
            lifetime *= 2
        await everything_due(redis, arrived, deadline_ms)
    assert told(arrived, {session}) == {session: [deadline_ms]}


async def slid(redis: Redis, arrived: list[Arrived], session: bytes, lifetime: int) -> int | None:
    """Its deadline, when it has been later three times; None if it has expired before. The ledger knows each deadline
    at once.
    """  # noqa: D205 - one sentence
    deadline_ms = await set_known(redis, session, lifetime)
    for slide in range(3):
        # The message of a key that is due shortly before says that the time has come for the next slide.
        watch = b"%b:%d" % (session, slide)
        await run(redis, "SET", watch, "v", "PXAT", deadline_ms - lifetime // 2)
        await all_of(arrived, {watch})
        later = await redis_ms(redis) + lifetime
        commands = ("PEXPIREAT", session, later), ("ZADD", LEDGER, "XX", later, session)
        if await deadline_after(redis, session, *commands, atomic=True) != later:
            return None
        assert told(arrived, {session}) == {}
        deadline_ms = later
    return deadline_ms


async def test_five_lives_of_one_key_are_five_messages_with_five_ids_in_their_order(shared: World) -> None:
    await shared.bridge.ready()
    key = b"lives:1"
    deadlines: list[int | None] = []
    async with user_of(shared.redis) as redis, arrivals(shared.nats) as arrived:
        for _ in range(5):
            deadlines.append(await set_known(redis, key, 400))

            async def is_over() -> bool:
                return not await redis.exists(key)  # this itself expires it, perhaps before the bridge does

            await wait_until(is_over)
            await wait_until(lambda: len([message for message in arrived if message.key == key]) == len(deadlines))
        await everything_due(redis, arrived)
    assert told(arrived, {key}) == {key: deadlines}
    messages = [message for message in arrived if message.key == key]
    for message in messages:
        message.keeps_the_contract()
    assert [message.event["id"] for message in messages] == [id_of_deadline(key, at or 0) for at in deadlines]


async def test_a_key_without_a_deadline_is_neither_announced_nor_recorded(shared: World) -> None:
    await shared.bridge.ready()
    async with user_of(shared.redis) as redis, arrivals(shared.nats) as arrived:
        await redis.mset({f"lasting:{number}": "v" for number in range(100)})
        await redis.delete("lasting:0")
        await everything_due(redis, arrived)
        ledger = await run(redis, "ZRANGE", LEDGER, 0, -1)
    assert not any(message.key.startswith(b"lasting:") for message in arrived)
    assert not any(key.startswith(b"lasting:") for key in ledger)


async def test_the_bridge_changes_no_key_and_no_deadline_of_the_user(shared: World) -> None:
    await shared.bridge.ready()
    async with user_of(shared.redis) as redis, arrivals(shared.nats) as arrived:
        before = {}
        for number in range(20):
            key = b"untouched:%d" % number
            deadline_ms = await deadline_after(redis, key, ("SET", key, number, "PX", 600_000 + number))
            before[key] = (b"%d" % number, deadline_ms)
            await recorded(redis, key, deadline_ms)
        await everything_due(redis, arrived)
        after = {key: (await redis.get(key), await run(redis, "PEXPIRETIME", key)) for key in before}
        own = [key async for key in redis.scan_iter(match="*expiry-bridge*")]
    assert after == before
    assert all(key.startswith(b"{expiry-bridge:0:0}:") for key in own)


@pytest.mark.parametrize("command", [("FLUSHDB",), ("SWAPDB", 0, 1)], ids=["FLUSHDB", "SWAPDB"])
async def test_keys_that_are_flushed_or_swapped_away_are_not_announced(
    redis_kind: type[RedisServer], command: tuple[Word, ...]
) -> None:
    with world(redis_kind) as own:
        await own.bridge.ready()
        async with user_of(own.redis) as redis, arrivals(own.nats) as arrived:
            keys = [b"flushed:%d" % number for number in range(50)]
            deadlines = {key: await set_for(redis, key, RECORDED) for key in keys}
            for key, deadline_ms in deadlines.items():
                await recorded(redis, key, deadline_ms)
            await run(redis, *command)
            again = await set_for(redis, keys[0], 60_000)
            await everything_due(redis, arrived, max(deadlines.values()))
            await recorded(redis, keys[0], again)
            await own.bridge.ready()
        assert told(arrived, keys) == {}
        assert re.search("lease was gone", own.bridge.log(1000))


async def test_a_key_that_is_evicted_is_not_announced(redis_kind: type[RedisServer]) -> None:
    with world(redis_kind, {"maxmemory-policy": "volatile-ttl"}) as own:
        await own.bridge.ready()
        async with user_of(own.redis) as redis, arrivals(own.nats) as arrived, evictions(redis) as evicted:
            deadlines, used = {}, int((await redis.info("memory"))["used_memory"])
            await redis.config_set("maxmemory", str(used + 4_000_000))
            for number in range(600):
                key = b"heavy:%d" % number
                set_ = ("SET", key, b"v" * 10_000, "PX", 3000)
                deadlines[key] = await deadline_after(redis, key, set_, atomic=True)
            await redis.config_set("maxmemory", "0")
            assert await redis.exists(LEASE, LEDGER) == 2  # without a TTL, they are not among those that are evicted
            gone = await evicted.keys()
            assert len(gone) == int((await redis.info("stats"))["evicted_keys"])
            assert set(gone) - deadlines.keys() <= {CANARY}
            kept = deadlines.keys() - set(gone)
            assert 0 < len(kept) < len(deadlines)
            await everything_due(redis, arrived, max(deadlines.values()))
    assert told(arrived, deadlines) == {key: [deadlines[key]] for key in kept}
