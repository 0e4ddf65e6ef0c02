"""A Redis that may evict the bridge's own keys: the bridge works, and says so at its start."""

import structlog

from tests.support.harness.inside import Inside
from tests.support.servers import RedisServer, require


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
