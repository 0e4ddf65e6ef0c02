"""The bridge's own keys, written by somebody else: repaired where that loses nothing, else refused in words."""

import json
from contextlib import closing
from itertools import product

import pytest
from redis.asyncio import Redis

from bridge.limits import LedgerLimits
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Claim, Lease
from bridge.redis.protocol.own_keys import Names
from bridge.redis.wire.commands import Commands
from bridge.redis.wire.endpoint import Endpoint
from bridge.settings import Settings
from tests.support.redis.commands import set_for, user_of
from tests.support.servers import Bridge, RedisServer, wait_until

pytestmark = pytest.mark.unmeasured

NAMES = Names("expiry-bridge", 0)
FORMER = ("holder", "former", "until", "1", "fence", "1")
"""A lease that is over."""
FIELDS = ("until", "fence", "seq", "depth", "heard", "canaries", "seen_ms", "recovered", "ambiguous")
NONSENSE = ("nonsense", "inf", "1.5", "99999999999999999999", "")


async def put(user: Redis, *command: str | bytes) -> None:
    await user.execute_command(*command)  # type: ignore[no-untyped-call]


def bridge_at(server: RedisServer) -> Bridge:
    return Bridge({"BRIDGE_REDIS_URL": server.url, "BRIDGE_SINK": "stdout"})


@pytest.mark.parametrize("key", ["lease", "deadlines", "outbox", "dead", "shards"])
async def test_a_key_of_another_type_is_refused_with_what_to_do(redis_server: RedisServer, key: str) -> None:
    async with user_of(redis_server) as user:
        await put(user, *(("RPUSH",) if key == "shards" else ("SET",)), NAMES.key(key.encode()), "x")
    async with bridge_at(redis_server) as bridge:
        assert await bridge.exited() == 1
        (problem,) = [json.loads(line)["problem"] for line in bridge.log().splitlines() if "bridge.refused" in line]
    assert "is not what a bridge writes" in problem
    assert "TYPE among those that match {expiry-bridge:0:*, or set another BRIDGE_NAMESPACE" in problem


async def test_an_outbox_that_takes_no_entry_any_more_is_refused(redis_server: RedisServer) -> None:
    async with user_of(redis_server) as user:
        await put(user, "XADD", NAMES.outbox, "18446744073709551615-18446744073709551615", "a", "b")
    async with bridge_at(redis_server) as bridge:
        assert await bridge.exited() == 1
        assert "the outbox ends with the id 18446744073709551615-18446744073709551615" in bridge.log()


async def test_a_number_of_shards_that_is_none_is_refused_by_its_name(redis_server: RedisServer) -> None:
    async with user_of(redis_server) as user:
        await put(user, "SET", NAMES.shards, "many")
    async with bridge_at(redis_server) as bridge:
        assert await bridge.exited() == 1
        assert "redis-cli UNLINK '{expiry-bridge:0:0}:shards'" in bridge.log()


@pytest.mark.parametrize("score", ["inf", "-inf", "1e300", "-1"])
async def test_an_entry_whose_deadline_cannot_be_one_is_forgotten(redis_server: RedisServer, score: str) -> None:
    async with user_of(redis_server) as user:
        for number in range(2500):
            await put(user, "ZADD", NAMES.deadlines, score, f"key:{number}")
        real = await set_for(user, b"key:1", 3_600_000)
        await works_and_repairs(redis_server, user, 2500)
        assert await user.zrange(NAMES.deadlines, 0, -1, withscores=True) == [(b"key:1", real)]


@pytest.mark.parametrize("field", FIELDS)
async def test_after_nonsense_in_the_lease_the_bridge_works(redis_server: RedisServer, field: str) -> None:
    async with user_of(redis_server) as user:
        await put(user, "HSET", NAMES.lease, *FORMER, field, NONSENSE[FIELDS.index(field) % len(NONSENSE)])
        await works_and_repairs(redis_server, user, 1)


async def test_whatever_nonsense_is_in_the_lease_is_forgotten(redis_server: RedisServer) -> None:
    """By the script that grants it: all that a bridge does about it."""
    endpoint = Endpoint.of(Settings.model_validate({"redis_url": redis_server.url}))
    async with user_of(redis_server) as user:
        for field, value in product(FIELDS, NONSENSE):
            await put(user, "DEL", NAMES.lease)
            await put(user, "HSET", NAMES.lease, *FORMER, field, value)
            with closing(Commands(endpoint)) as commands:
                lease = await Ledger(commands, NAMES, LedgerLimits()).acquire(Claim("bridge"))
            assert isinstance(lease, Lease)
            assert (field, value, lease.forgotten) == (field, value, 1)
            assert await user.hget(NAMES.lease, field) != value.encode()


async def works_and_repairs(server: RedisServer, user: Redis, count: int) -> None:
    async with bridge_at(server) as bridge:
        await bridge.ready()
        (line,) = [json.loads(line) for line in bridge.log().splitlines() if "ledger.repaired" in line]
        assert line["count"] == count
        await set_for(user, b"soon", 100)
        await wait_until(lambda: '"key":"soon"' in bridge.output(), bridge.log)
        assert await bridge.stop() == 0
