"""What a real Prometheus makes of real bridges: every panel has data, and the alerts see what happens."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from bridge.tasks import end
from tests.support.deployed import DEPLOY
from tests.support.deployments.world import settings_for
from tests.support.prometheus import Prometheus
from tests.support.servers import Bridge, NatsServer, Redis8Server, require, start, wait_until

pytestmark = pytest.mark.unmeasured

DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
VARIABLES = {"$job": "bridge", "$__rate_interval": "10s"}
SECONDS = 60.0
LOADED = (
    "Expirations: {{via}}",
    "Messages: published",
    "Deadline ledger: keys",
    "Values: captured",
    "Hash fields: {{via}}",
    "Field ledger: hashes",
)
"""Where the load is seen."""


@asynccontextmanager
async def load(redis: Redis) -> AsyncIterator[None]:
    """Keys that expire, and some that last, until the end of the block."""

    async def write() -> None:
        number = 0
        while True:
            number += 1
            pipeline = redis.pipeline(transaction=False)
            pipeline.set(f"share:{number}", "", px=200)
            pipeline.set(f"lasting:{number % 100}", "", ex=600)
            pipeline.hset("session:1", str(number), "")
            pipeline.hpexpire("session:1", 200, number)
            await pipeline.execute()
            await asyncio.sleep(0.02)

    writing = asyncio.create_task(write(), name="load")
    try:
        yield
    finally:
        await end([writing])


def queries() -> dict[str, str]:
    """Panel and legend → what it asks, with the dashboard's variables filled in."""
    found = {}
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            found[f"{panel['title']}: {target['legendFormat']}"] = expression
    return found


@pytest.mark.slow
async def test_every_panel_has_data_and_the_alerts_tell_good_times_from_bad_ones() -> None:
    require(Redis8Server)
    require(NatsServer)
    asked = queries()
    assert len(asked) == sum(len(panel["targets"]) for panel in DASHBOARD["panels"])
    with Redis8Server() as redis_server, NatsServer() as nats_server:
        opted = {"BRIDGE_VALUES": "share:*", "BRIDGE_FIELDS": "session:*"}
        settings = settings_for(redis_server, nats_server) | opted
        async with Bridge(settings) as holder, Redis(port=redis_server.port) as redis:
            await holder.ready()
            async with Bridge(settings) as standby, watching(holder, standby) as prometheus:
                async with load(redis):
                    await panels_have_data(prometheus, asked)
                    await alerts_tell(prometheus)
                    nats_server.kill()
                    await alerts_tell(prometheus, {"ExpiryBridgeBrokerDown"}, set())
                    nats_server.start()
                    await alerts_tell(prometheus, set(), {"ExpiryBridgeBrokerDown", "ExpiryBridgeBrokerUnstable"})
                redis_server.kill()
                await alerts_tell(prometheus, {"ExpiryBridgeNotSubscribed"}, {"ExpiryBridgeNoStandby"})
                await standby.stop()
                await alerts_tell(prometheus, {"ExpiryBridgeNotSubscribed", "ExpiryBridgeNoStandby"}, set())
                holder.kill()
                await alerts_tell(prometheus, {"ExpiryBridgeAbsent"}, {"ExpiryBridgeNotSubscribed"})


@asynccontextmanager
async def watching(*bridges: Bridge) -> AsyncIterator[Prometheus]:
    """A Prometheus that scrapes these."""
    prometheus = Prometheus([bridge.http_port for bridge in bridges])
    try:
        await start(prometheus)
        yield prometheus
    finally:
        prometheus.close()


async def panels_have_data(prometheus: Prometheus, asked: dict[str, str]) -> None:
    """Each query yields numbers, and those by which the load is seen are not 0."""
    values: dict[str, list[float]] = {}

    def is_seen() -> bool:
        for name, query in asked.items():
            values[name] = [value for _, value in prometheus.samples(query)]
        rates = [values[name] for name in LOADED]
        return all(map(any, rates)) and all(found and not any(map(math.isnan, found)) for found in values.values())

    await wait_until(is_seen, lambda: f"data in every panel; there is {values}", SECONDS)


async def alerts_tell(prometheus: Prometheus, of: set[str] | None = None, not_of: set[str] | None = None) -> None:
    """Return when these alerts are on their way or firing, and those are not; without `not_of`, no others are.

    A machine that is slow enough has more to be told of in bad times, and after them.
    """
    wanted, seen = of or set(), dict[str, str]()

    def is_told() -> bool:
        seen.update(prometheus.alerts())
        active = {name for name, state in seen.items() if state != "inactive"}
        return wanted <= active and not (active - wanted if not_of is None else active & not_of)

    await wait_until(is_told, lambda: f"{of}, and not {not_of or 'others'}; there are {seen}", SECONDS)
