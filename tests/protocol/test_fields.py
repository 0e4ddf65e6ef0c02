"""Fields of hashes that expire, on the servers that have them: what is announced, once; what can only be counted."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from itertools import count
from typing import NoReturn

import msgpack
import pytest
from redis.asyncio import Redis

from bridge.errors import Refused
from bridge.limits import FieldLimits
from bridge.redis.ledger.fields import FieldLedger
from bridge.redis.protocol.field_calls import Look, Looked
from bridge.redis.protocol.fields import EXPIRED, TIMED, FieldHints, Hint, Reasons
from bridge.redis.protocol.notifications import NEEDED_FLAGS, Kind
from bridge.redis.wire.commands import Commands
from bridge.redis.wire.endpoint import Endpoint
from bridge.settings import Settings
from bridge.tasks import end
from tests.support.field_oracle import Oracle
from tests.support.harness.inside import SOON, Inside
from tests.support.harness.user import NAMES, lapse, passed
from tests.support.naming_server import naming_fields
from tests.support.redis.commands import redis_ms, run, user_of
from tests.support.servers import Redis8Server, RedisServer, ValkeyServer, require, wait_until

SECONDS = float(os.environ.get("FIELDS_SECONDS", "2.5"))
"""How long each oracle writes. With more, the shares are judged that the machine's speed decides."""
LONG = SECONDS >= 20
ALL_IN = ("EVAL", "return redis.call('XRANGE', KEYS[1], '-', '+')", 1)
KINDS = [pytest.param(Redis8Server, id="redis8"), pytest.param(ValkeyServer, id="valkey9")]


NAMED_ENDS = """
redis.call('HDEL', KEYS[1], 'a', 'deleted')
redis.call('HSET', KEYS[1], 'back', 'anew')
for n = 1, #ARGV, 2 do redis.call('ZADD', KEYS[2], ARGV[n], ARGV[n + 1]) end
redis.call('PUBLISH', '__subkeyevent@0__:hexpired', '1:h|1:a,4:back,10:unrecorded')
return redis.call('PUBLISH', '__subkeyevent@0__:hdel', '1:h|7:deleted')
"""
"""What a server says that expires some fields, and deletes another one, whose deadlines are past."""


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    kind: type[RedisServer] = request.param
    require(kind)
    with kind({"enable-debug-command": "yes"}) as server:
        yield server


@pytest.fixture
def redis8() -> Iterator[RedisServer]:
    require(Redis8Server)
    with Redis8Server() as server:
        yield server


@pytest.fixture
async def user(server: RedisServer) -> AsyncIterator[Redis]:
    async with user_of(server) as user:
        yield user


def bridge_of(server: RedisServer, instance: str = "inside") -> Inside:
    return Inside(server.port, instance, limits=SOON, fields="*")


async def timed(user: Redis, key: bytes, ms: int, *fields: bytes, keep: bool = True) -> int:
    """A hash with these fields, which live for so long; with `keep`, another one stays. Their deadline."""
    deadline_ms = await redis_ms(user) + ms
    pairs = [word for field in [*fields, *([b"kept"] if keep else [])] for word in (field, b"")]
    async with user.pipeline(transaction=True) as both:
        both.execute_command("HSET", key, *pairs)
        both.execute_command("HPEXPIREAT", key, deadline_ms, "FIELDS", len(fields), *fields)
        await both.execute()
    return deadline_ms


KNOWN = """
local time = redis.call('TIME')
local deadline = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1])
for n = 2, #ARGV do
  redis.call('HSET', KEYS[1], ARGV[n], '', 'kept', '')
  redis.call('HPEXPIREAT', KEYS[1], deadline, 'FIELDS', 1, ARGV[n])
  redis.call('ZADD', KEYS[2], deadline, ARGV[n])
end
redis.call('ZADD', KEYS[3], deadline, KEYS[1])
return deadline
"""


async def known(user: Redis, key: bytes, ms: int, *fields: bytes) -> int:
    """As `timed`; and the field ledger knows of it at once, however slow the machine is."""
    return int(await run(user, "EVAL", KNOWN, 3, key, NAMES.field_prefix + key, NAMES.fields, ms, *fields))


async def recorded(user: Redis, key: bytes, *fields: bytes) -> None:
    async def is_recorded() -> bool:
        return None not in [await user.zscore(NAMES.field_prefix + key, field) for field in fields]

    await wait_until(is_recorded, f"{fields!r} of {key!r} in the ledger")


async def forgotten(user: Redis, key: bytes) -> None:
    async def is_forgotten() -> bool:
        return await user.zscore(NAMES.fields, key) is None

    await wait_until(is_forgotten, f"no field of {key!r} in the ledger")


def told(bridge: Inside) -> set[tuple[str, str, int, str]]:
    """Hash, field, deadline, via of what was announced."""
    found = [event["data"] for event in bridge.published if event["type"] == "redis.hash.field.expired"]
    made = {(data["key"], data["field"], data["deadline_ms"], data["via"]) for data in found}
    assert len(made) == len(found), "announced twice"
    return made


def ambiguous(bridge: Inside) -> dict[str, int]:
    """By kind, those that are any."""
    counter = bridge.telemetry.metrics.fields().ambiguous
    samples = [sample for family in counter.collect() for sample in family.samples if sample.name.endswith("_total")]
    return {sample.labels["kind"]: int(sample.value) for sample in samples if sample.value}


async def test_fields_are_announced_and_what_was_taken_back_is_not(server: RedisServer, user: Redis) -> None:
    await timed(user, b"before", 60_000, b"a")
    async with bridge_of(server) as bridge:
        await bridge.reconciled()
        await recorded(user, b"before", b"a")
        early = await known(user, b"before", 500, b"a")
        several = await known(user, b"several", 700, b"a", b"b\xff")
        for key in (b"deleted", b"hdel", b"hset", b"persist", b"later", b"renamed", b"string"):
            await timed(user, key, 60_000, b"a")
            await recorded(user, key, b"a")
        await user.delete("deleted")
        await user.hdel("hdel", "a")
        await user.hset("hset", "a", "anew")
        await user.hpersist("persist", "a")
        await user.rename("renamed", "moved")
        for key in (b"deleted", b"hdel", b"hset", b"persist", b"renamed"):
            await forgotten(user, key)
        await recorded(user, b"moved", b"a")
        await user.hpexpireat("later", await redis_ms(user) + 50_000, "a")

        last = await timed(user, b"last", 60_000, b"a", keep=False)
        await recorded(user, b"last", b"a")
        last = await redis_ms(user) + 500
        await run(user, "HPEXPIREAT", "last", last, "FIELDS", 1, "a")
        await bridge.told(4)
        await forgotten(user, b"before")
        names = {(event["data"]["key"], event["data"].get("field")) for event in bridge.published}
        assert names == {("several", "a"), ("several", None), ("last", "a"), ("before", "a")}
        by_key = {event["data"]["key"]: event["data"]["deadline_ms"] for event in bridge.published}
        assert by_key == {"several": several, "last": last, "before": early}
        assert len(bridge.published) == 4
        assert ambiguous(bridge) == {}


async def test_what_expired_while_no_bridge_listened_is_announced_as_swept(server: RedisServer, user: Redis) -> None:
    async with bridge_of(server) as first:
        await first.reconciled()
        await timed(user, b"long", 60_000, b"a", b"b")
        await recorded(user, b"long", b"a", b"b")
        await first.kill()
    await known(user, b"refreshed", 200, b"a")
    lost = await known(user, b"lost", 200, b"a", b"b")
    await passed(user, lost + 10)
    # Whatever the server has deleted by now, it deletes the rest: as if its own turn had come.
    await wait_until(lambda: _all_gone(user, b"lost", b"a", b"b"))
    await user.hset("refreshed", "a", "anew")
    await user.hdel("long", "a")
    await lapse(user)

    async with bridge_of(server, "second") as second:
        await second.reconciled()
        await second.told(2)
        assert told(second) == {("lost", "a", lost, "sweep"), ("lost", "b", lost, "sweep")}
        (record,) = await second.records(1)
        assert (record["recovered"], record["ambiguous"], record["missed"]) == (2, 1, record["missed"])
        assert ambiguous(second) == {"returned": 1}
        assert await user.zrange(NAMES.field_prefix + b"long", 0, -1) == [b"b"]


async def _all_gone(user: Redis, key: bytes, *fields: bytes) -> bool:
    """Let the server delete what is overdue, whichever way it has: until it counts none of it any more."""
    for field in fields:
        await run(user, "HGET", key, field)
    return bool(await run(user, "HLEN", key) == 1)


async def test_a_standby_goes_on_where_a_killed_bridge_was(server: RedisServer, user: Redis) -> None:
    async with bridge_of(server, "first") as first, bridge_of(server, "second") as second:
        await wait_until(lambda: first.telemetry.closed + second.telemetry.closed == 1)
        holder, standby = (first, second) if first.telemetry.closed else (second, first)
        deadlines = [await known(user, b"h:%d" % number, 400 + 40 * number, b"a") for number in range(20)]
        await holder.told(4)
        await holder.kill()
        before = told(holder)

        await wait_until(lambda: {one[:3] for one in before | told(standby)} == _lives(deadlines))
        both = {one[:3] for one in before} & {one[:3] for one in told(standby)}
        assert len(both) <= 1  # published, and not settled: under the same id
        assert standby.telemetry.closed == 0


def _lives(deadlines: list[int]) -> set[tuple[str, str, int]]:
    return {(f"h:{number}", "a", deadline) for number, deadline in enumerate(deadlines)}


async def test_a_hash_with_too_many_fields_is_a_dead_letter_once(server: RedisServer, user: Redis) -> None:
    fields = [b"%d" % number for number in range(501)]
    await timed(user, b"found", 60_000, b"a", *fields)
    await user.hset("no-deadlines", mapping=dict.fromkeys(map(bytes.decode, fields), ""))
    async with bridge_of(server) as bridge:
        await bridge.reconciled()
        await timed(user, b"grown", 60_000, b"a")
        await recorded(user, b"grown", b"a")
        await timed(user, b"grown", 60_000, *fields)
        await wait_until(lambda: _dead(user, 2))
        await timed(user, b"grown", 60_000, b"one more")
        await known(user, b"small", 300, b"a")
        await bridge.told(1)

        letters = [dict(zip(words[::2], words[1::2], strict=True)) for _, words in await run(user, *ALL_IN, NAMES.dead)]
        assert {letter[b"hash"] for letter in letters} == {b"found", b"grown"}
        assert all(b"more than 500" in letter[b"reason"] for letter in letters)
        assert ambiguous(bridge) == {"too_large": 1}

        await user.hdel("grown", *fields)
        await recorded(user, b"grown", b"one more")
        assert await user.xlen(NAMES.dead) == 2


async def test_a_hash_that_is_about_too_large_is_one_dead_letter(redis8: RedisServer) -> None:
    fields = [b"%d" % number for number in range(500)]
    async with user_of(redis8) as user, bridge_of(redis8) as bridge:
        await bridge.reconciled()
        await timed(user, b"h", 600_000, *fields, keep=False)
        await recorded(user, b"h", *fields)
        for times in range(3):
            await user.hset("h", "one more", "")
            await wait_until(lambda: _dead(user, 1))
            await user.hdel("h", "one more")
            await known(user, b"behind", 100, b"a")
            await bridge.told(times + 1)
        await user.hdel("h", *fields[:50])
        await recorded(user, b"h", *fields[50:])
        assert await user.xlen(NAMES.dead) == 1


async def test_fields_that_have_expired_and_are_still_stored_make_no_hash_too_large(
    server: RedisServer, user: Redis
) -> None:
    await run(user, "DEBUG", "SET-ACTIVE-EXPIRE", 0)
    async with bridge_of(server) as bridge:
        await bridge.reconciled()
        deadline = await timed(user, b"h", 1_000, *(b"first %d" % number for number in range(300)))
        await recorded(user, b"h", b"first 299")
        await passed(user, deadline + 1)
        fields = [b"%d" % number for number in range(300)]
        await timed(user, b"h", 60_000, *fields)
        assert await user.hlen("h") == 601
        await recorded(user, b"h", *fields)
        await bridge.told(300)
        assert not await user.xlen(NAMES.dead)
        assert ambiguous(bridge) == {}


async def test_so_many_stored_fields_that_they_are_not_read_are_a_dead_letter_until_they_are_fewer(
    server: RedisServer, user: Redis
) -> None:
    await run(user, "DEBUG", "SET-ACTIVE-EXPIRE", 0)
    limits = replace(SOON, fields=replace(SOON.fields, most=10))
    expired = [b"expired %d" % number for number in range(36)]
    await passed(user, await timed(user, b"h", 20, *expired, keep=False) + 1)
    fields = [b"%d" % number for number in range(10)]
    async with Inside(server.port, limits=limits, fields="*") as bridge:
        await bridge.reconciled()
        await timed(user, b"h", 60_000, *fields[:9], keep=False)
        await wait_until(lambda: _dead(user, 1))
        ((_, words),) = await run(user, *ALL_IN, NAMES.dead)
        assert dict(zip(words[::2], words[1::2], strict=True)) == {
            b"reason": b"the hash has 45 fields, with those that have expired and are still stored, more than 40: "
            b"their expirations are not announced",
            b"hash": b"h",
            b"fields": b"45",
        }
        await run(user, "DEBUG", "SET-ACTIVE-EXPIRE", 1)
        await wait_until(lambda: _stores(user, b"h", 9))
        await recorded(user, b"h", *fields[:9])
        await timed(user, b"h", 60_000, fields[9], keep=False)
        await recorded(user, b"h", fields[9])
        assert await user.xlen(NAMES.dead) == 1


async def _stores(user: Redis, key: bytes, count: int) -> bool:
    return bool(await run(user, "HLEN", key) == count)


async def test_all_else_goes_on_while_a_large_hash_is_looked_at(redis8: RedisServer) -> None:
    limits = replace(SOON, fields=replace(SOON.fields, most=1))  # so that each answer is of a few fields
    async with user_of(redis8) as user, Inside(redis8.port, limits=limits, fields="*") as bridge:
        await bridge.reconciled()
        await user.hset("built", mapping={f"{number:064}": "" for number in range(3_000)})
        scripts: list[str] = []
        async with user.monitor() as monitor:
            await user.rename("built", "large")
            looks = 0
            while looks < 1_000:
                command = (await monitor.next_command())["command"].split()
                looks += command[0] == "HSCAN" and command[1] == "large"
                if looks and command[0] == "EVALSHA":
                    scripts.append(command[0])
        assert scripts


async def test_a_large_hash_that_became_something_else_has_no_deadlines(redis8: RedisServer) -> None:
    endpoint = Endpoint.of(Settings(redis_url=f"redis://127.0.0.1:{redis8.port}/0", sink="stdout"))
    async with user_of(redis8) as user:
        with closing(Commands(endpoint)) as commands:
            ledger = FieldLedger(commands, NAMES, SOON.fields)
            await user.set("string", "")
            await timed(user, b"h", 60_000, b"a")

            assert await ledger.has_deadlines(b"h")
            assert not await ledger.has_deadlines(b"string")
            assert not await ledger.has_deadlines(b"nothing")


async def test_a_gap_is_closed_though_hashes_change_all_the_time(redis8: RedisServer) -> None:
    """As long as each script reads fewer hashes than change meanwhile, some wait always."""
    keys = [b"%d" % number for number in range(60)]
    async with user_of(redis8) as user:
        for key in keys:
            await timed(user, key, 600_000, b"a")

        async def write() -> NoReturn:
            while True:
                async with user.pipeline(transaction=False) as pipeline:
                    for key in keys:
                        pipeline.hset(key, "kept", "")
                    await pipeline.execute()

        limits = replace(SOON, fields=replace(SOON.fields, read=1))
        writing = asyncio.create_task(write())
        try:
            async with Inside(redis8.port, limits=limits, fields="*") as bridge:
                await bridge.reconciled()
                assert await user.zcard(NAMES.fields) == len(keys)
        finally:
            await end([writing])


async def test_hashes_that_are_due_are_read_though_a_large_one_is_notified_before_each_script(
    server: RedisServer, user: Redis
) -> None:
    await run(user, "DEBUG", "SET-ACTIVE-EXPIRE", 0)  # nothing is said of those that are due
    await user.hset(NAMES.lease.decode(), "fence", "7")
    await timed(user, b"busy", 60_000, *(b"%d" % number for number in range(499)))
    due = [b"due %d" % number for number in range(3)]
    await passed(user, max([await known(user, key, 1, b"a") for key in due]) + 1)
    async with looking(server) as look:
        looked = await look([(b"busy", Reasons(TIMED)), *((b"other", Reasons(TIMED)) for _ in range(9))], 250)
    assert (looked.handled, looked.by_notification, looked.by_sweep) == (1, 3, 0)
    assert await user.zcard(NAMES.field_prefix + b"busy") == 499


async def test_a_field_that_is_gone_while_hints_were_lost_is_ambiguous(server: RedisServer, user: Redis) -> None:
    await user.hset(NAMES.lease.decode(), "fence", "7")
    deadline = await known(user, b"h", 300, b"a")
    await user.hdel("h", "a")
    await passed(user, deadline + 1)
    hints, mark = FieldHints(NAMES), NAMES.mark(7, 1)
    hints.notified(b"__keyevent@0__:hdel", Kind.FIELD_DELETED, b"h")
    hints.clear()
    async with looking(server) as look:
        looked = await look([], 250)
        assert looked.waiting == [b"h"]
        hints.wait(mark, looked.waiting, [])
        # The server may name what it deletes from now on.
        hints.add(b"h", TIMED, deleted=[b"another"])
        hints.returned(mark)
        looked = await look(hints.take(1, 100), 250)
    assert (looked.ambiguous.deleted, looked.by_sweep, looked.by_notification) == (1, 0, 0)


async def test_a_script_claims_no_more_than_the_names_have_bytes_for(server: RedisServer, user: Redis) -> None:
    await user.hset(NAMES.lease.decode(), "fence", "7")
    key, fields = b"h" * 100_000, {b"%d" % number for number in range(40)}
    await run(user, "DEBUG", "SET-ACTIVE-EXPIRE", 0)  # the server still stores them: they have certainly expired
    await passed(user, await known(user, key, 1, *fields) + 1)
    async with looking(server) as look:
        for hints in ([(key, Reasons(TIMED + EXPIRED))], [], [(b"other", Reasons(b""))]):
            looked = await look(hints, 250)
            assert (looked.unfinished, looked.lowest_ms is not None) == ([key], True)
        while looked.unfinished:
            looked = await look([], 250)
        assert looked.lowest_ms is None
    entries = await run(user, *ALL_IN, NAMES.outbox)
    claims = [msgpack.unpackb(words[-1], raw=True) for _, words in entries]
    assert max(map(len, claims)) <= 4 * 5
    assert sorted(field for claim in claims for field in claim[1::4]) == sorted(fields)


@pytest.mark.parametrize("active", [0, 1])
async def test_what_expires_in_a_hash_with_a_long_name_is_announced_all_the_same(
    server: RedisServer, user: Redis, active: int
) -> None:
    await run(user, "DEBUG", "SET-ACTIVE-EXPIRE", active)
    limits = replace(SOON, fields=replace(SOON.fields, read_bytes=400))
    fields = [b"%d" % number for number in range(40)]
    async with Inside(server.port, limits=limits, fields="*") as bridge:
        await bridge.reconciled()
        deadline = await known(user, b"h" * 200, 200, *fields)
        await known(user, b"other", 300, b"a")
        await bridge.told(41)
        assert {one[1:3] for one in told(bridge) if one[0] != "other"} == {(one.decode(), deadline) for one in fields}
        assert ambiguous(bridge) == {}


@asynccontextmanager
async def looking(
    server: RedisServer, limits: FieldLimits = SOON.fields
) -> AsyncIterator[Callable[[list[Hint], int], Awaitable[Looked]]]:
    """Scripts of the epoch 7: hints, and how many of the hashes that are due."""
    endpoint = Endpoint.of(Settings(redis_url=f"redis://127.0.0.1:{server.port}/0", sink="stdout"))
    with closing(Commands(endpoint)) as commands:
        ledger, seqs = FieldLedger(commands, NAMES, limits), count(1)

        async def look(hints: list[Hint], due: int) -> Looked:
            seq = next(seqs)
            looked = await ledger.look(Look(7, seq, NAMES.mark(7, seq), 0, hints, due))
            assert looked is not None
            return looked

        yield look


async def _dead(user: Redis, count: int) -> bool:
    return bool(await user.xlen(NAMES.dead) >= count)


async def test_a_deadline_in_the_past_deletes_and_is_not_announced(server: RedisServer, user: Redis) -> None:
    async with bridge_of(server) as bridge:
        await bridge.reconciled()
        await timed(user, b"h", 60_000, b"past", b"now", b"live")
        await recorded(user, b"h", b"past", b"now", b"live")
        await run(user, "HPEXPIREAT", "h", await redis_ms(user) - 5000, "FIELDS", 1, "past")
        await run(user, "HPEXPIRE", "h", 0, "FIELDS", 1, "now")
        due = await known(user, b"h", 300, b"live")
        await bridge.told(1)
        await forgotten(user, b"h")

        assert {one[:3] for one in told(bridge)} == {("h", "live", due)}


async def test_a_field_is_not_announced_at_its_very_deadline(server: RedisServer, user: Redis) -> None:
    """Until that is past it is there. On Redis, HPEXPIRETIME alone says before that there is none."""
    endpoint = Endpoint.of(Settings(redis_url=f"redis://127.0.0.1:{server.port}/0", sink="stdout"))
    await user.hset(NAMES.lease.decode(), "fence", "7")
    with closing(Commands(endpoint)) as commands:
        ledger, seq = FieldLedger(commands, NAMES, SOON.fields), 0
        for _ in range(10):
            deadline, now = await timed(user, b"h", 20, b"a"), 0
            while now <= deadline + 5:
                seq += 1
                hint = (b"h", Reasons(TIMED + EXPIRED))
                looked = await ledger.look(Look(7, seq, NAMES.mark(7, seq), 0, [hint], 0))
                assert looked is not None
                now = looked.now_us // 1000
                # A script's clock may stand still while the server's goes on: only what is too early by both is wrong.
                assert await redis_ms(user) > deadline or not looked.by_notification


async def test_a_field_ledger_that_was_deleted_is_made_anew(server: RedisServer, user: Redis) -> None:
    async with bridge_of(server) as bridge:
        await bridge.reconciled()
        await timed(user, b"h", 60_000, b"a")
        await recorded(user, b"h", b"a")
        await user.delete(NAMES.fields)
        await wait_until(lambda: _knows(user, b"h"), "the hash in the ledger once more")
        await user.delete(NAMES.field_prefix + b"h")
        await recorded(user, b"h", b"a")
        due = await known(user, b"h", 300, b"a")
        await bridge.told(1)

        assert {one[:3] for one in told(bridge)} == {("h", "a", due)}


async def test_what_is_no_field_ledger_is_removed_and_counted(server: RedisServer, user: Redis) -> None:
    await user.set(NAMES.fields, "another program's")
    await user.rpush(NAMES.field_prefix + b"h", "another program's")
    await timed(user, b"h", 60_000, b"a")
    async with bridge_of(server) as bridge:
        await bridge.reconciled()
        await recorded(user, b"h", b"a")
        assert (bridge.telemetry.repaired, bridge.telemetry.causes) == (2, ["start"])

        await user.set(NAMES.fields, "another program's")
        await user.set(NAMES.field_prefix + b"h", "another program's")
        await timed(user, b"i", 60_000, b"a")
        for key in (b"h", b"i"):
            await wait_until(partial(_knows, user, key), f"{key!r} in the ledger once more")
            await recorded(user, key, b"a")
        assert bridge.telemetry.repaired == 4

        due = await known(user, b"h", 300, b"a")
        await bridge.told(1)
        assert {one[:3] for one in told(bridge)} == {("h", "a", due)}
        assert bridge.telemetry.endings == []


@pytest.mark.parametrize("score", ["inf", "-inf", "-1", "1e300", "1.5"])
async def test_a_first_deadline_that_no_bridge_writes_is_replaced(redis8: RedisServer, score: str) -> None:
    async with user_of(redis8) as user:
        deadline = await timed(user, b"h", 60_000, b"a")
        await user.zadd(NAMES.fields, {b"h": score, b"gone": score})
        async with bridge_of(redis8) as bridge:
            await bridge.reconciled()
            assert await user.zrange(NAMES.fields, 0, -1, withscores=True) == [(b"h", deadline)]
            assert bridge.telemetry.endings == []


async def test_what_is_no_field_ledger_is_removed_when_one_is_adopted(redis8: RedisServer) -> None:
    endpoint = Endpoint.of(Settings(redis_url=f"redis://127.0.0.1:{redis8.port}/0", sink="stdout"))
    other = NAMES.of(7)
    async with user_of(redis8) as user:
        with closing(Commands(endpoint)) as commands:
            ledger = FieldLedger(commands, NAMES, SOON.fields)
            await user.hset(NAMES.lease, "fence", "1")
            await user.set(other.fields, "another program's")
            assert await ledger.adopt(1, 7) == ([], 0, 1)

            await user.zadd(other.fields, {b"h": 1000, b"i": 2000})
            await user.zadd(other.field_prefix + b"h", {b"a": 1000})
            for key in (NAMES.fields, NAMES.field_prefix + b"h", other.field_prefix + b"i"):
                await user.set(key, "another program's")
            assert await ledger.adopt(1, 7) == ([b"h", b"i"], 0, 3)
            assert await user.zrange(NAMES.fields, 0, -1) == [b"h"]
            assert await user.zrange(NAMES.field_prefix + b"h", 0, -1) == [b"a"]


async def _knows(user: Redis, key: bytes) -> bool:
    return await user.zscore(NAMES.fields, key) is not None


@pytest.mark.parametrize("read_bytes", [SOON.fields.read_bytes, 1], ids=["at once", "one by one"])
async def test_where_the_server_names_fields_that_decides(redis8: RedisServer, read_bytes: int) -> None:
    limits = replace(SOON, fields=replace(SOON.fields, read_bytes=read_bytes))
    async with (
        user_of(redis8) as user,
        naming_fields(redis8.port) as port,
        Inside(port, limits=limits, fields="*") as bridge,
    ):
        await bridge.reconciled()
        assert await user.publish("__keyevent@0__:hexpired", "h") == 0
        await timed(user, b"h", 60_000, b"a", b"deleted", b"back")
        await recorded(user, b"h", b"a", b"deleted", b"back")
        due = await redis_ms(user) - 10
        recorded_then = [word for field in (b"a", b"deleted", b"back") for word in (due, field)]
        assert await run(user, "EVAL", NAMED_ENDS, 2, b"h", NAMES.field_prefix + b"h", *recorded_then) == 1
        await bridge.told(2)

        assert told(bridge) == {("h", "a", due, "notification"), ("h", "back", due, "notification")}
        assert ambiguous(bridge) == {"deleted": 1}


async def test_without_the_setting_nothing_is_heard_of_fields_or_written(server: RedisServer, user: Redis) -> None:
    async with Inside(server.port, limits=SOON) as bridge:
        await bridge.reconciled()
        deadline = await timed(user, b"h", 200, b"a", keep=False)
        await passed(user, deadline + 20)
        await user.set("key", "", px=100)
        await bridge.told(1)

        flags = await user.config_get("notify-keyspace-events")
        assert set(flags["notify-keyspace-events"] or "") == set(NEEDED_FLAGS)
        assert not await user.pubsub_channels("*hexpired*")
        assert not await user.keys(f"{NAMES.own_pattern.decode()}field*")
        assert [event["type"] for event in bridge.published] == ["redis.key.expired"]


async def test_a_server_without_deadlines_of_fields_is_refused(one_redis: RedisServer) -> None:
    with pytest.raises(Refused, match=r"BRIDGE_FIELDS needs Redis 7\.4 or Valkey 9\.0"):
        async with bridge_of(one_redis) as bridge:
            await bridge.reconciled()


@pytest.mark.slow(12)
@pytest.mark.unmeasured
@pytest.mark.parametrize("calm", [True, False], ids=["calm", "adversarial"])
async def test_what_expires_is_announced_or_counted_and_nothing_twice(calm: bool) -> None:  # noqa: FBT001
    """On both kinds side by side. The shares, which depend on the machine's speed, are judged in long runs only."""

    async def play(kind: type[RedisServer]) -> str:
        with kind() as server:
            async with user_of(server) as user, bridge_of(server) as bridge:
                await bridge.reconciled()
                # Where the machine must not matter, writes keep far from deadlines.
                apart, longest = (50, 500) if LONG else (2000, 2500)
                oracle = Oracle(user, random.Random(1), 0.0 if calm else 0.25, apart if calm else 0, longest_ms=longest)
                if calm:
                    oracle.shortest_ms = longest - 100
                await oracle.write(SECONDS)
                await _settled(user, bridge)
                judgement = oracle.judge(event["data"] for event in bridge.published)
                counted = sum(ambiguous(bridge).values())
                text = f"{kind.distribution}, {'calm' if calm else 'adversarial'}: {judgement}; {ambiguous(bridge)}"
                assert not judgement.twice, text
                assert not judgement.foreign, text
                assert len(judgement.missed) <= counted, text
                assert judgement.expired, text
                if calm and not LONG:
                    assert not judgement.missed, text
                    assert not judgement.false, text
                if LONG:
                    assert judgement.expired > 20, text
                    share = judgement.announced / judgement.expired
                    assert share == 1 if calm else share >= 0.985, text
                return text

    kinds: tuple[type[RedisServer], ...] = (Redis8Server, ValkeyServer)
    for kind in kinds:
        require(kind)
    print(*await asyncio.gather(*map(play, kinds)), sep="\n")  # noqa: T201 - for long runs


async def _settled(user: Redis, bridge: Inside) -> None:
    """Return when no field is due any more, and all is published that was claimed."""

    async def nothing_is_due() -> bool:
        return await user.zcount(NAMES.fields, 1, await redis_ms(user)) == 0

    async def nothing_waits() -> bool:
        return int(await run(user, "HGET", NAMES.lease, "depth") or 0) == 0

    await wait_until(nothing_is_due)
    await wait_until(nothing_waits)
