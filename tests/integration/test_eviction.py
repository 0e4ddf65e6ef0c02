"""A Redis that may evict the bridge's own keys: the bridge works, and says so at its start."""

import pytest
import structlog

from tests.support.contract import CANARY
from tests.support.harness.inside import Inside
from tests.support.redis.commands import user_of
from tests.support.redis.evictions import evictions
from tests.support.servers import RedisServer, require, wait_until


async def test_a_policy_that_may_evict_the_ledger_is_warned_of_at_the_start() -> None:
    require(RedisServer)
    with RedisServer({"maxmemory-policy": "allkeys-lru"}) as server, structlog.testing.capture_logs() as logs:
        async with Inside(server.port) as bridge:
            await bridge.reconciled()
    (warning,) = [entry for entry in logs if entry["event"] == "ledger.endangered"]
    assert (warning["policy"], warning["log_level"]) == ("allkeys-lru", "warning")


async def test_a_policy_that_spares_keys_without_a_ttl_is_not_warned_of() -> None:
    require(RedisServer)
    with RedisServer({"maxmemory-policy": "volatile-lru"}) as server, structlog.testing.capture_logs() as logs:
        async with Inside(server.port) as bridge:
            await bridge.reconciled()
    assert "ledger.endangered" not in {entry["event"] for entry in logs}


@pytest.mark.both_kinds
async def test_a_canary_that_is_evicted_opens_no_gap(redis_kind: type[RedisServer]) -> None:
    require(redis_kind)
    with redis_kind({"maxmemory-policy": "volatile-ttl"}) as server:
        async with user_of(server) as user, Inside(server.port) as bridge, evictions(user) as evicted:
            await bridge.reconciled()

            async def took_it() -> bool:
                """Whether a canary was evicted: it is whenever one is out, and there is no memory for a moment."""
                moment = user.pipeline(transaction=False)  # Redis runs both before anything of the bridge's
                moment.config_set("maxmemory", "1")
                moment.config_set("maxmemory", "0")
                await moment.execute()
                return CANARY in await evicted.keys()

            await wait_until(took_it, "the eviction of a canary")
            heard = bridge.telemetry.canaries
            await wait_until(lambda: bridge.telemetry.canaries > heard, "the next canary")
            await bridge.quiet(user)
            assert bridge.telemetry.causes == ["start"]
