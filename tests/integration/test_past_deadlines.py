"""Deadlines in the past: what each server says of them, and what is announced (deploy/docs/guarantees.md)."""

import pytest

from tests.support.harness.inside import Inside
from tests.support.harness.published import key_of
from tests.support.redis.commands import Command, redis_ms, run, user_of
from tests.support.servers import Redis8Server, RedisServer, ValkeyServer, require


@pytest.mark.parametrize("kind", [RedisServer, Redis8Server, ValkeyServer], ids=lambda kind: kind.distribution)
async def test_a_deadline_in_the_past_is_announced_as_the_table_says(kind: type[RedisServer]) -> None:
    require(kind)
    with kind() as server:
        async with user_of(server) as user, Inside(server.port) as bridge:
            await bridge.reconciled()
            now = await redis_ms(user)
            await user.set("source", "v")
            payload = await user.dump("source")
            assert payload is not None
            gone: dict[str, Command] = {
                "EXPIRE": ("EXPIRE", "EXPIRE", -1),
                "PEXPIREAT": ("PEXPIREAT", "PEXPIREAT", now - 1000),
                "GETEX": ("GETEX", "GETEX", "PXAT", now - 1000),
            }
            for key, command in gone.items():
                await user.set(key, "v")
                await run(user, *command)
            await user.set("timed", "v", px=60_000)
            await user.pexpireat("timed", now - 1000)
            await user.set("SET over", "v")
            for key in ("SET", "SET over"):
                await run(user, "SET", key, "w", "PXAT", now - 1000)
            await run(user, "RESTORE", "RESTORE", now - 1000, payload, "ABSTTL")
            assert await user.exists(*gone, "timed", "SET", "SET over", "RESTORE") == 0
            await bridge.quiet(user)
    found = {key_of(event).decode(): event["data"]["deadline_ms"] for event in bridge.published}
    assert found == dict.fromkeys([*gone, "timed", "SET over"] if kind is ValkeyServer else ["SET", "SET over"])
