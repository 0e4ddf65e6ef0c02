"""Values of expired keys: which are announced, and that those called exact are the last ones, whatever happens."""

import asyncio
import os
import random
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis

from bridge.limits import EpochLimits, LedgerLimits
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Capture, Claim, Lease
from bridge.redis.wire.commands import Commands
from bridge.redis.wire.endpoint import Endpoint
from bridge.settings import Settings
from tests.support.harness.inside import Inside
from tests.support.harness.lives import Lives
from tests.support.harness.published import key_of
from tests.support.harness.user import NAMES
from tests.support.limits import QUICK
from tests.support.proxy import TO_SERVER, Action, Protocol, Proxy, command
from tests.support.redis.commands import Command, redis_ms, run, user_of
from tests.support.servers import ROOT, Redis8Server, RedisServer, ValkeyServer, require, wait_until

SEED = int(os.environ.get("VALUES_SEED", "1"))
ENOUGH = int(os.environ.get("VALUES_EXACT", "60"))
"""Exact values that the oracle looks at on each server, at least."""
SERVERS = [RedisServer, Redis8Server, ValkeyServer]
LEAD = 30.0
"""Seconds: so a key's value is read as soon as its deadline is known."""


@pytest.fixture(params=SERVERS, ids=lambda kind: kind.distribution)
def any_kind(request: pytest.FixtureRequest) -> type[RedisServer]:
    """Each does client-side caching in its own way."""
    kind: type[RedisServer] = request.param
    require(kind)
    return kind


@pytest.fixture
async def early(server: RedisServer) -> AsyncIterator[Inside]:
    """A bridge that reads values long before their deadlines."""
    async with Inside(server.port, values=["*"], values_lead=LEAD) as bridge:
        await bridge.reconciled()
        yield bridge


async def captured(user: Redis, *keys: bytes) -> None:
    """Return when the values of these keys are held."""

    async def are_held() -> bool:
        return await user.type(NAMES.values) == b"hash" and None not in await user.hmget(NAMES.values, list(keys))

    await wait_until(are_held, f"the values of {keys!r}")


def data_of(bridge: Inside, key: bytes) -> dict[str, Any]:
    """What was announced of the key."""
    [event] = [event for event in bridge.published if key_of(event) == key]
    return dict(event["data"])


async def strike(user: Redis, port: int, rng: random.Random) -> None:
    """Again and again, take away what the proof stands on."""
    async with Redis(port=port, db=5) as other:
        while True:
            await asyncio.sleep(rng.uniform(0.05, 0.4))
            match rng.randrange(4):
                case 0:
                    await lose_tracking(user)
                case 1:
                    await user.client_kill_filter(_type="pubsub")
                case 2:
                    await other.flushdb()
                case _:
                    await user.config_set("tracking-table-max-keys", rng.choice([1, 20, 1_000_000]))


async def lose_tracking(user: Redis, *then: Command) -> None:
    """End the connections that Redis tracks, and run the commands before it can be told."""
    pipeline = user.pipeline(transaction=True)
    for client in await user.client_list():
        if "t" in client["flags"]:
            pipeline.execute_command("CLIENT", "KILL", "ID", client["id"])
    for words in then:
        pipeline.execute_command(*words)
    await pipeline.execute()


@pytest.mark.slow
@pytest.mark.parametrize("struck", [False, True], ids=["calm", "struck"])
async def test_a_value_that_is_called_exact_is_the_last_one(any_kind: type[RedisServer], *, struck: bool) -> None:
    with any_kind() as server:
        async with user_of(server) as user, Inside(server.port, values=["life:*"]) as bridge:
            await bridge.reconciled()
            lives, exact, rounds = Lives(user, SEED), 0, 0
            while exact < (ENOUGH // 10 if struck else ENOUGH):
                rounds += 1
                striking = asyncio.create_task(strike(user, server.port, random.Random(SEED + rounds)))
                if not struck:
                    striking.cancel()
                await lives.go_on(1)
                striking.cancel()
                exact = lives.judge(bridge.published)["exact"]
            if not struck:  # else the last strike may have taken the sentinel as well
                await bridge.quiet(user)
            lives.judge(bridge.published)


async def test_the_value_of_each_type_goes_along(any_kind: type[RedisServer]) -> None:
    with any_kind() as server:
        async with user_of(server) as user, Inside(server.port, values=["*", "!no:*"], values_lead=LEAD) as bridge:
            await bridge.reconciled()
            await user.hset("hash", mapping={"f": "v", "g": "w"})
            await user.rpush("list", "1", "2")
            await user.sadd("set", "x")
            await user.zadd("zset", {"m": 1.5, "n": float("inf")})
            await user.xadd("stream", {"f": "v"})
            await user.hset("many", mapping={str(number): "" for number in range(5000)})
            await user.hset("huge", mapping={"f": "x" * 70_000})
            await user.set("string", "text")
            await user.set("empty", "")
            await user.set("binary", b"\xff")
            await user.rpush("binary:list", b"a", b"\xff")
            await user.set("large", "x" * 65_537)
            await user.set("most", "x" * 65_536)
            await user.set("no:string", "text")
            keys = [key async for key in user.scan_iter() if not key.startswith(b"{")]
            for key in keys:
                await user.pexpire(key, 1500)
            await captured(user, *(key for key in keys if key != b"no:string"))
            await bridge.told(len(keys))
    found = {key: data_of(bridge, key) for key in keys}
    values = {key: data.get("value", data.get("value_base64")) for key, data in found.items()}
    assert values == {
        b"hash": {"f": "v", "g": "w"},
        b"list": ["1", "2"],
        b"set": ["x"],
        b"zset": [["m", 1.5], ["n", "inf"]],
        b"string": "text",
        b"empty": "",
        b"most": "x" * 65_536,
        b"binary": "/w==",
        b"binary:list": ["YQ==", "/w=="],
        b"stream": None,
        b"many": None,
        b"huge": None,
        b"large": None,
        b"no:string": None,
    }
    missing = {key: data["value_missing"] for key, data in found.items() if "value_missing" in data}
    assert missing == {
        b"stream": "unsupported_type",
        b"many": "too_large",
        b"huge": "too_large",
        b"large": "too_large",
    }
    assert found[b"large"]["value_bytes"] == 65_537
    assert all(data["value_exact"] for data in found.values() if "value_exact" in data)
    assert not [name for name in found[b"no:string"] if name.startswith(("value", "captured"))]


async def test_one_script_looks_at_no_more_than_it_has_room_for_whatever_becomes_of_it(
    any_kind: type[RedisServer],
) -> None:
    crowd, fields = 50, any_kind is not RedisServer
    with any_kind() as server, closing(Commands(Endpoint.of(Settings(redis_url=server.url)))) as commands:
        async with user_of(server) as user:
            ledger = Ledger(commands, NAMES, LedgerLimits())
            lease = await ledger.acquire(Claim("test", keeps_values=True))
            assert isinstance(lease, Lease)
            deadline = await redis_ms(user) + 60_000
            for number in range(crowd):
                await user.hset(f"hash:{number}", mapping={f"{field:010d}": "x" * 10 for field in range(4000)})
                await user.sadd(f"set:{number}", *range(3500))
                await user.rpush(f"list:{number}", *["x"] * 500, "x" * 70_000)
                await user.zadd(f"zset:{number}", {f"{member:040d}": 1 for member in range(2000)})
                await user.hset(f"kept:{number}", mapping={str(field): "" for field in range(500)})
                await user.rpush(f"many:{number}", *["x"] * 3000)
                await user.sadd(f"count:{number}", *range(4097))
            looked = {}
            for kind in ("hash", "set", "list", "zset", "kept", "many", "count"):
                asked = [(b"%s:%d" % (kind.encode(), number), deadline) for number in range(crowd)]
                for key, at in asked:
                    await user.pexpireat(key, at)
                await user.zadd(NAMES.deadlines, dict(asked))
                capture = Capture(lease.fence, asked, 65_536, EpochLimits().value_bytes, 1 << 30, fields=fields)
                looked[kind] = len((await ledger.capture(capture)).sizes)
    kept = 2 if fields else 28
    assert looked == {"hash": 2, "set": 4, "list": 4, "zset": 3, "kept": kept, "many": 6, "count": crowd}


@pytest.mark.both_kinds
async def test_a_value_that_was_captured_goes_along_when_the_bridge_dies_but_is_not_proven(
    server: RedisServer, user: Redis
) -> None:
    async with Inside(server.port, values=["*"], values_lead=LEAD) as first:
        await first.reconciled()
        await user.set("kept", "v", px=1500)
        await captured(user, b"kept")
        await first.kill()
    await wait_until(lambda: _gone(user, "kept"), "its deadline")
    async with Inside(server.port, "second", values=["*"]) as second:
        await second.told(1)
        data = data_of(second, b"kept")
        assert (data["value"], data["value_exact"]) == ("v", False)
        assert (await user.hgetall(NAMES.values), await user.hget(NAMES.lease, "held_bytes")) == ({}, b"0")


async def _gone(user: Redis, key: str) -> bool:
    return await user.exists(key) == 0


@pytest.mark.both_kinds
@pytest.mark.parametrize("way", ["killed", "flushed elsewhere", "table full"])
async def test_a_write_that_redis_may_not_tell_of_leaves_no_proof(
    server: RedisServer, user: Redis, early: Inside, way: str
) -> None:
    await user.set("other", "v", px=2500)
    await user.set("key", "old", px=2500)
    await captured(user, b"key", b"other")
    match way:
        case "killed":
            await lose_tracking(user, ("SET", "key", "new", "KEEPTTL"))
        case "flushed elsewhere":
            async with user_of(server, 5) as elsewhere:
                await elsewhere.flushdb()
        case _:
            await user.config_set("tracking-table-max-keys", 1)
            await user.get("key")
    await user.set("key", "new", keepttl=True)
    await early.told(2)
    data = data_of(early, b"key")
    assert data["value"] == "new" if data["value_exact"] else data["value"] in {"old", "new"}


@pytest.mark.both_kinds
async def test_values_are_proven_once_the_user_may_have_them_tracked(server: RedisServer, user: Redis) -> None:
    await run(user, "ACL", "SETUSER", "narrow", "on", ">secret", "~*", "&*", "+@all", "-client|tracking")
    again = replace(QUICK, epoch=replace(QUICK.epoch, tracking_refused=0.1))
    as_narrow = partial(Inside, redis_username="narrow", redis_password="secret")
    async with as_narrow(server.port, limits=again, values=["*"], values_lead=LEAD) as bridge:
        await bridge.reconciled()
        await user.set("key", "v", px=1500)
        await bridge.told(1)
        assert data_of(bridge, b"key")["value_exact"] is False
        await run(user, "ACL", "SETUSER", "narrow", "+client|tracking")

        async def is_proven() -> bool:
            await user.set("key", "v", px=500, nx=True)
            return any(event["data"].get("value_exact") for event in bridge.published)

        await wait_until(is_proven, "a proof, once the user may")
        assert bridge.telemetry.endings == []


@pytest.mark.both_kinds
async def test_expirations_do_not_wait_for_a_connection_that_is_to_be_tracked(server: RedisServer, user: Redis) -> None:
    patient = replace(QUICK, wire=replace(QUICK.wire, command=120.0))
    async with Proxy(server.port, Protocol.RESP) as proxy:
        tracking = command(b"CLIENT", lambda words: b"TRACKING" in words)
        held = proxy.break_on(TO_SERVER, tracking, Action.HOLD)
        async with Inside(proxy.port, limits=patient, values=["*"], values_lead=LEAD) as bridge:
            await held.reached()
            await bridge.reconciled()
            await user.set("key", "v", px=1500)
            await captured(user, b"key")
            await bridge.told(1)
            data = data_of(bridge, b"key")
            assert (data["value"], data["value_exact"]) == ("v", False)
            held.release()

            async def is_proven() -> bool:
                await user.set("key", "v", px=500, nx=True)
                return any(event["data"].get("value_exact") for event in bridge.published)

            await wait_until(is_proven, "a proof, once it is tracked")


@pytest.mark.both_kinds
async def test_a_refreshed_key_is_announced_with_the_value_of_its_last_deadline(user: Redis, early: Inside) -> None:
    await user.set("key", "old", px=60_000)
    await captured(user, b"key")
    await user.set("key", "new", px=900)
    await early.told(1)
    data = data_of(early, b"key")
    assert data.get("value") in {None, "new"}
    assert data.get("value_exact") in {None, True}


@pytest.mark.both_kinds
async def test_values_wait_in_redis_up_to_their_bound_while_the_broker_is_down(
    server: RedisServer, user: Redis
) -> None:
    bound = 20_000
    async with Inside(
        server.port, values=["*"], values_lead=LEAD, values_max_bytes=5000, values_outbox_bytes=bound
    ) as bridge:
        await bridge.reconciled()
        bridge.broker.up.clear()
        for number in range(10):
            await user.set(f"key:{number}", "x" * 4900, px=1500 + number)
        await captured(user, *(b"key:%d" % number for number in range(10)))
        await wait_until(lambda: _gone(user, "key:9"), "the last deadline")

        async def all_claimed() -> bool:
            return await user.hget(NAMES.lease, "depth") == b"10"

        await wait_until(all_claimed)
        assert 4 * 4900 <= int(await user.hget(NAMES.lease, "value_bytes") or 0) <= bound + 1000
        bridge.broker.up.set()
        await bridge.told(10)
        reasons = [data_of(bridge, b"key:%d" % number).get("value_missing") for number in range(10)]
        assert sorted(filter(None, reasons)) == ["outbox_full"] * 6

        async def nothing_left() -> bool:
            return await user.hmget(NAMES.lease, "held_bytes", "value_bytes") == [b"0", b"0"]

        await wait_until(nothing_left)


@pytest.mark.both_kinds
async def test_all_keys_of_a_crowd_with_one_deadline_are_captured(server: RedisServer, user: Redis) -> None:
    """In pages. It is begun before the lead, since the pace is believed to be low, and gone on with within it."""
    crowd = replace(QUICK, epoch=replace(QUICK.epoch, listed_values=20, capture_rate=10, crowd_look=0.0))
    async with Inside(server.port, limits=crowd, values=["*"], values_lead=5.0) as bridge:
        await bridge.reconciled()
        deadline = await redis_ms(user) + 7_000
        keys = [f"key:{number}" for number in range(200)]
        for key in keys:
            await user.set(key, "v", pxat=deadline)
        await captured(user, *(key.encode() for key in keys))


@pytest.mark.both_kinds
async def test_a_bridge_without_values_drops_those_of_a_former_one(server: RedisServer, user: Redis) -> None:
    async with Inside(server.port, values=["*"], values_lead=LEAD) as first:
        await first.reconciled()
        await user.set("key", "v", px=5000)
        await captured(user, b"key")
        await first.stop()
    async with Inside(server.port, "second") as second:
        await wait_until(lambda: not second.unready)
        assert await user.exists(NAMES.values) == 0
        assert await user.hget(NAMES.lease, "values") is None
        await second.stop()


@pytest.mark.both_kinds
async def test_what_is_no_hash_where_values_are_held_is_removed_and_counted(server: RedisServer, user: Redis) -> None:
    await user.set(NAMES.values, "another program's")
    async with (
        Proxy(server.port, Protocol.RESP) as proxy,
        Inside(proxy.port, values=["*"], values_lead=LEAD) as bridge,
    ):
        await bridge.reconciled()
        assert bridge.telemetry.repaired == 1

        await user.set("first", "v", px=20_000)
        await captured(user, b"first")
        await user.set(NAMES.values, "another program's")
        await user.set("second", "w", px=1500)
        await captured(user, b"first", b"second")
        assert bridge.telemetry.repaired == 2

        claim = proxy.break_on(TO_SERVER, b"second", Action.HOLD)
        await claim.reached()
        await user.rename(NAMES.values, "kept")
        await user.rpush(NAMES.values, "another program's")
        claim.release()
        await bridge.told(1)
        assert data_of(bridge, b"second")["value_missing"] == "not_captured"
        await captured(user, b"first")
        assert (bridge.telemetry.repaired, bridge.telemetry.endings) == (3, [])


@pytest.mark.parametrize("any_kind", [Redis8Server, ValkeyServer], indirect=True)
async def test_of_a_hash_whose_fields_expire_before_it_only_what_is_left_is_proven(any_kind: type[RedisServer]) -> None:
    with any_kind() as server:
        async with user_of(server) as user, Inside(server.port, values=["*"], values_lead=LEAD) as bridge:
            await bridge.reconciled()
            for key, field_ms in ((b"earlier", 500), (b"later", 60_000)):
                await user.hset(key.decode(), mapping={"f": "v", "g": "w"})
                await run(user, "HPEXPIRE", key, field_ms, "FIELDS", 1, "f")
                await user.pexpire(key, 1500)
            await bridge.told(2)
    assert data_of(bridge, b"later")["value"] == {"f": "v", "g": "w"}
    assert data_of(bridge, b"later")["value_exact"]
    earlier = data_of(bridge, b"earlier")
    assert earlier["value"] == {"g": "w"} or not earlier["value_exact"]


async def test_the_companion_key_of_the_how_to_is_there_when_its_timer_expires(
    server: RedisServer, user: Redis
) -> None:
    page = (ROOT / "deploy" / "docs" / "how-to" / "values.md").read_text().partition("## Without values")[2]
    async with Inside(server.port) as bridge:
        await bridge.reconciled()
        for line in re.findall(r"^SET .*", page, re.MULTILINE):
            await run(user, *shlex.split(line, comments=True))
        await user.pexpire("timer:17", 300)  # a test does not wait for a quarter of an hour
        await bridge.told(1)
        [timer] = bridge.published
        data = await user.getdel(timer["data"]["key"].replace("timer:", "data:"))
    assert data == b'{"user":4711,"items":3}'
