"""`BRIDGE_KEYS` in a running bridge: scans and hints agree on what it leaves out, and no key keeps them busy."""

from contextlib import AsyncExitStack

import pytest

from tests.support.contract import LEDGER
from tests.support.deployments.arrivals import all_of, arrivals, everything_due, told
from tests.support.deployments.world import bridged
from tests.support.redis.commands import recorded, run, set_for, set_known, user_of
from tests.support.servers import NatsServer, RedisServer

pytestmark = pytest.mark.unmeasured

SCANNED = 5000
"""How long keys live that a scan has to find: the bridge needs a moment to start."""


@pytest.mark.parametrize("keys", ["*,!share:tmp:*", "share:*,sentinel:*,!*:tmp:*"])
async def test_what_a_pattern_excludes_is_announced_neither_from_a_scan_nor_from_a_hint(
    redis_server: RedisServer, nats_server: NatsServer, keys: str
) -> None:
    async with user_of(redis_server) as redis, AsyncExitStack() as stack:
        known = {b"share:old": await set_for(redis, b"share:old", SCANNED)}
        await set_for(redis, b"share:tmp:old", SCANNED)
        with bridged(redis_server, nats_server, keys=keys) as bridge:
            await bridge.ready()
            arrived = await stack.enter_async_context(arrivals(nats_server))
            await recorded(redis, b"share:old", known[b"share:old"])
            known[b"share:new"] = await set_for(redis, b"share:new", SCANNED)
            await set_for(redis, b"share:tmp:new", SCANNED)
            await recorded(redis, b"share:new", known[b"share:new"])
            assert not [key for key in await redis.zrange(LEDGER, 0, -1) if b":tmp:" in key]
            await everything_due(redis, arrived, max(known.values()))
    assert told(arrived, [*known, b"share:tmp:old", b"share:tmp:new"]) == {key: [at] for key, at in known.items()}


async def test_a_key_of_nothing_but_colons_holds_up_no_start(
    redis_server: RedisServer, nats_server: NatsServer
) -> None:
    async with user_of(redis_server) as redis, AsyncExitStack() as stack:
        await run(redis, "SET", b":" * 4096, "v")
        with bridged(redis_server, nats_server, keys="*:*:*:lock,share:*") as bridge:
            await bridge.ready()
            arrived = await stack.enter_async_context(arrivals(nats_server))
            await set_for(redis, b":" * 4097, 100)
            key = b"a:b:c:lock"
            deadline = await set_known(redis, key, 200)
            await all_of(arrived, {key})
    assert told(arrived, [key]) == {key: [deadline]}
