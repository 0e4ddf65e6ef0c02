"""The journey of an expiration, from whatever command set the deadline to the message in JetStream."""

from collections.abc import Iterator

import msgpack
import pytest

from tests.support.contract import LEASE, LEDGER, OUTBOX, id_of_entry
from tests.support.deployments.arrivals import all_of, arrivals, everything_due, told
from tests.support.deployments.world import World, world
from tests.support.kinds import EACH_KIND
from tests.support.redis.commands import (
    DEBUG,
    SET_TOGETHER,
    Command,
    deadline_after,
    lazily,
    recorded,
    redis_ms,
    run,
    set_for,
    user_of,
)
from tests.support.servers import RedisServer, ValkeyServer, wait_until

pytestmark = pytest.mark.both_kinds


@pytest.fixture(scope="module", params=EACH_KIND)
def shared(request: pytest.FixtureRequest) -> Iterator[World]:
    """The tests of this module tell themselves apart by the names of their keys."""
    with world(request.param) as made:
        yield made


def ways(key: bytes, payload: bytes, now: int) -> dict[str, list[Command]]:
    """Commands that give `key` a deadline, soon. Anything later than a minute is one that was not to be taken."""
    soon, later = now + 1200, now + 90_000
    soon_s = now // 1000 + 2
    plain, brief, lasting = ("SET", key, "v"), ("SET", key, "v", "PX", 900), ("SET", key, "v", "PX", 90_000)
    source = key + b":source"
    found: dict[str, list[Command]] = {
        "SET EX": [("SET", key, "v", "EX", 1)],
        "SET PX": [("SET", key, "v", "PX", 900)],
        "SET EXAT": [("SET", key, "v", "EXAT", soon_s)],
        "SET PXAT": [("SET", key, "v", "PXAT", soon)],
        "SET KEEPTTL": [brief, ("SET", key, "w", "KEEPTTL")],
        "SET NX EX GET": [("SET", key, "v", "NX", "GET", "EX", 1)],
        "SET XX PX": [lasting, ("SET", key, "w", "XX", "PX", 900)],
        "SET NX, refused": [brief, ("SET", key, "w", "NX", "EX", 90)],
        "SETEX": [("SETEX", key, 1, "v")],
        "PSETEX": [("PSETEX", key, 900, "v")],
        "GETEX EX": [plain, ("GETEX", key, "EX", 1)],
        "GETEX PX": [plain, ("GETEX", key, "PX", 900)],
        "GETEX EXAT": [lasting, ("GETEX", key, "EXAT", soon_s)],
        "GETEX PXAT": [lasting, ("GETEX", key, "PXAT", soon)],
        "RESTORE": [("RESTORE", key, 900, payload)],
        "RESTORE ABSTTL": [("RESTORE", key, soon, payload, "ABSTTL")],
        "RESTORE REPLACE": [lasting, ("RESTORE", key, 900, payload, "REPLACE")],
        "COPY": [("SET", source, "v", "PXAT", soon), ("COPY", source, key)],
        "COPY REPLACE": [lasting, ("SET", source, "v", "PXAT", soon), ("COPY", source, key, "REPLACE")],
        "RENAME": [("SET", source, "v", "PXAT", soon), ("RENAME", source, key)],
        "RENAME onto another": [lasting, ("SET", source, "v", "PXAT", soon), ("RENAME", source, key)],
        "RENAMENX": [("SET", source, "v", "PXAT", soon), ("RENAMENX", source, key)],
        "Lua": [("EVAL", "return redis.call('SET', KEYS[1], 'v', 'PX', 900)", 1, key)],
        "shortened": [lasting, ("PEXPIRE", key, 60_000), ("PEXPIRE", key, 900)],
        "prolonged": [("SET", key, "v", "PX", 700), ("PEXPIREAT", key, soon)],
        "persisted, then not": [lasting, ("PERSIST", key), ("PEXPIREAT", key, soon)],
        "deleted, then set again": [lasting, ("DEL", key), brief],
        "changed in place": [("SET", key, 1, "PX", 900), ("INCR", key), ("APPEND", key, "0"), ("SETRANGE", key, 0, 7)],
        "a hash": [("HSET", key, "f", "v"), ("PEXPIREAT", key, soon)],
        "a list": [("RPUSH", key, "a", "b"), ("PEXPIREAT", key, soon), ("LPOP", key)],
        "a set": [("SADD", key, "a"), ("PEXPIREAT", key, soon)],
        "a sorted set": [("ZADD", key, 1, "a"), ("PEXPIREAT", key, soon)],
        "a stream": [("XADD", key, "*", "f", "v"), ("PEXPIREAT", key, soon)],
    }
    for command, near, far in (
        ("EXPIRE", 1, 90),
        ("PEXPIRE", 900, 90_000),
        ("EXPIREAT", soon_s, soon_s + 90),
        ("PEXPIREAT", soon, later),
    ):
        found |= {
            command: [plain, (command, key, near)],
            f"{command} NX": [plain, (command, key, near, "NX")],
            f"{command} NX, refused": [brief, (command, key, far, "NX")],
            f"{command} XX": [lasting, (command, key, near, "XX")],
            f"{command} GT": [("SET", key, "v", "PX", 500), (command, key, near, "GT")],
            f"{command} GT, refused": [brief, (command, key, 0, "GT")],
            f"{command} LT": [lasting, (command, key, near, "LT")],
            f"{command} LT, of a key without one": [plain, (command, key, near, "LT")],
            f"{command} LT, refused": [brief, (command, key, far, "LT")],
        }
    return found


def newer_ways(key: bytes) -> dict[str, list[Command]]:
    """What only Valkey 9 knows, of the servers here."""
    return {
        "MSETEX": [("MSETEX", 1, key, "v", "PX", 900)],
        "SET IFEQ": [("SET", key, "v", "PX", 90_000), ("SET", key, "w", "IFEQ", "v", "PX", 900)],
    }


@pytest.mark.parametrize("atomic", [False, True], ids=["one by one", "in MULTI"])
async def test_whatever_command_gives_a_key_its_deadline_the_expiration_arrives_once(
    shared: World, *, atomic: bool
) -> None:
    await shared.bridge.ready()
    async with user_of(shared.redis) as redis, arrivals(shared.nats) as arrived:
        await redis.set("payload", "v")
        payload = await redis.dump("payload")
        assert payload is not None
        deadlines: dict[bytes, list[int | None]] = {}
        newer = newer_ways if isinstance(shared.redis, ValkeyServer) else lambda _: {}
        for way in [*ways(b"", payload, 0), *newer(b"")]:
            key = f"journey:{way}:{atomic}".encode()
            commands = {**ways(key, payload, await redis_ms(redis)), **newer(key)}[way]
            deadlines[key] = [await deadline_after(redis, key, *commands, atomic=atomic)]
            if way.startswith("COPY"):
                deadlines[key + b":source"] = deadlines[key]
        await all_of(arrived, deadlines)
        await everything_due(redis, arrived)
    sources = {key + b":source" for key in deadlines}
    assert told(arrived, deadlines.keys() | sources) == deadlines
    for message in arrived:
        message.keeps_the_contract()


async def test_keys_that_come_from_another_database_are_announced(shared: World) -> None:
    await shared.bridge.ready()
    moved, returned, copied, stayed = keys = b"abroad:moved", b"abroad:returned", b"abroad:copied", b"abroad:stayed"
    async with user_of(shared.redis) as home, user_of(shared.redis, 1) as abroad, arrivals(shared.nats) as arrived:
        deadlines = {moved: await set_for(abroad, moved, 900), returned: await set_for(home, returned, 900)}
        deadlines[copied] = await set_for(abroad, copied, 900)
        await set_for(abroad, stayed, 900)
        assert await run(home, "MOVE", returned, 1)
        assert await run(abroad, "MOVE", returned, 0)
        assert await run(abroad, "MOVE", moved, 0)
        assert await run(abroad, "COPY", copied, copied, "DB", 0)
        await everything_due(home, arrived, max(deadlines.values()))
    assert told(arrived, keys) == {key: [deadline] for key, deadline in deadlines.items()}


async def test_two_thousand_keys_with_the_same_deadline_arrive_once_each(shared: World) -> None:
    await shared.bridge.ready()
    keys = [b"crowd:%d" % number for number in range(2000)]
    async with user_of(shared.redis) as redis, arrivals(shared.nats) as arrived:
        deadline_ms = int(await run(redis, "EVAL", SET_TOGETHER, 1, LEDGER, 1000, 1, *keys))
        await all_of(arrived, set(keys))  # Redis may expire a sentinel before some of so many
        await everything_due(redis, arrived, deadline_ms)
    assert told(arrived, set(keys)) == {key: [deadline_ms] for key in keys}
    for message in arrived:
        message.keeps_the_contract()


async def test_a_key_that_expires_before_it_can_be_recorded_arrives_without_a_deadline(shared: World) -> None:
    await shared.bridge.ready()
    keys = [b"instant:1", b"instant:2"]
    busy = ("EVAL", "for i = 1, 3000000 do end", 0)  # no other client is served between the commands of one pipeline
    async with user_of(shared.redis) as redis, arrivals(shared.nats) as arrived:
        shared.nats.pause()
        try:
            for key in keys:
                assert await deadline_after(redis, key, ("SET", key, "v", "PX", 1), busy) == -2

            async def both_wait() -> bool:
                return await redis.hget(LEASE, "depth") == b"2"

            await wait_until(both_wait)
            entries = await run(redis, "XRANGE", OUTBOX, "-", "+")
        finally:
            shared.nats.resume()
        await all_of(arrived, keys)
        await everything_due(redis, arrived)
    ids = {}
    for entry, fields in entries:
        claims = msgpack.unpackb(fields[b"claims"])
        for index, key in enumerate(claims[::3]):
            ids[key.encode()] = id_of_entry(key.encode(), entry, index)
    assert told(arrived, keys) == {key: [None] for key in keys}
    for message in arrived[: len(keys)]:
        message.keeps_the_contract()
        assert message.event["id"] == ids[message.key]


async def test_a_deadline_in_the_past_is_an_expiration_where_the_server_says_so(shared: World) -> None:
    await shared.bridge.ready()
    with_ttl, without = b"past:1", b"past:2"
    async with user_of(shared.redis) as redis, arrivals(shared.nats) as arrived:
        await recorded(redis, with_ttl, await set_for(redis, with_ttl, 60_000))
        await redis.set(without, "v")
        for key in (with_ttl, without):
            assert await redis.pexpireat(key, 1)
        await everything_due(redis, arrived)
    # Redis notifies `del`, Valkey 9 `expired`; that deadline itself was never a key's, so nobody could read it.
    expected = [None] if isinstance(shared.redis, ValkeyServer) else []
    assert told(arrived, [with_ttl, without]) == {key: expected for key in (with_ttl, without) if expected}


async def test_keys_arrive_on_a_server_that_expires_nothing_by_itself(redis_kind: type[RedisServer]) -> None:
    with world(redis_kind, DEBUG) as lazy:
        await lazy.bridge.ready()
        async with user_of(lazy.redis) as redis, arrivals(lazy.nats) as arrived:
            await lazily(redis)
            deadlines = {key: await set_for(redis, key, 300 + 10 * key[-1]) for key in (b"l:1", b"l:2", b"l:3")}
            await all_of(arrived, deadlines)
    assert told(arrived, deadlines) == {key: [deadline] for key, deadline in deadlines.items()}
    for message in arrived:
        message.keeps_the_contract()
