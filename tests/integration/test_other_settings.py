"""Bridges of a namespace that do not agree: one takes over from the other, says what differs, counts what it drops."""

import asyncio
import json

import pytest

from bridge.cli.main import main
from bridge.telemetry import logs
from tests.integration.doctor import examine
from tests.support.contract import LEASE, LEDGER
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.scene import LASTING_MS
from tests.support.deployments.telemetry import events
from tests.support.servers import PATIENCE, Bridge, NatsServer, RedisServer, wait_until

OTHERS = {"BRIDGE_KEYS": "shar[e]:*", "BRIDGE_SOURCE": "/elsewhere"}
DIFFERENCES = "BRIDGE_KEYS is '*' there, and 'shar[e]:*' here; BRIDGE_SOURCE is '/redis' there, and '/elsewhere' here"
FORGOTTEN = 'bridge_forgotten_entries_total{shard="0"}'


async def another(deployment: Deployment, settings: dict[str, str]) -> Bridge:
    """A bridge with other settings, that stands by."""
    deployment.settings = settings
    bridge = await deployment.start_bridge(direct=True)
    await wait_until(lambda: events(bridge, "lease.awaited"), bridge.log, PATIENCE)
    return bridge


async def forgotten(bridge: Bridge) -> float:
    """How many entries it has forgotten."""
    _, text = await bridge.get("/metrics")
    return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(FORGOTTEN)))


async def test_what_differs_is_said_once_and_what_other_patterns_drop_is_counted(
    redis_kind: type[RedisServer],
) -> None:
    async with Deployment.of(redis_kind) as deployment:
        former = await deployment.ready_bridge(direct=True)
        await deployment.redis.set("session:1", "", px=LASTING_MS)
        await deployment.set(["share:1"], LASTING_MS)

        async def are_recorded() -> bool:
            return {"session:1", "share:1"} <= set(await deployment.redis.zrange(LEDGER, 0, -1))

        await wait_until(are_recorded, former.log, PATIENCE)
        bridge = await another(deployment, OTHERS)
        former.kill()
        await bridge.ready()
        assert [line["differences"] for line in events(bridge, "settings.differed")] == [DIFFERENCES]
        assert [line["hot"] for line in events(bridge, "standby.promoted")] == [False], "only a scan finds what is new"
        assert not events(bridge, "entries.forgotten"), "as long as the key may come back to its patterns, it is kept"
        deployment.expected.clear()  # its id is another one, as is the source
        for key in ("session:1", "share:1"):
            await deployment.redis.pexpire(key, 100)
        await deployment.redis.zadd(LEDGER, {"session:1": 1})  # as if its deadline had not changed, and were past

        async def is_counted() -> bool:
            return await forgotten(bridge) == 1

        await wait_until(is_counted, bridge.log, PATIENCE)
        assert len(events(bridge, "entries.forgotten")) == 1

        async def is_announced() -> bool:
            return [one.key for one in await deployment.stored() or ()] == ["share:1"]

        await wait_until(is_announced, bridge.log, PATIENCE)


async def test_a_bridge_that_agrees_says_nothing_nor_one_that_follows_an_older_version(
    redis_kind: type[RedisServer],
) -> None:
    async with Deployment.of(redis_kind) as deployment:
        former = await deployment.ready_bridge(direct=True)
        second = await another(deployment, {"BRIDGE_HTTP_HOST": "127.0.0.1"})
        # An older version takes the lease, and leaves what lies there as it is.
        await deployment.redis.hset(LEASE, "fingerprint", '1 {"BRIDGE_KEYS": "other:*"}')
        former.kill()
        await second.ready()
        third = await another(deployment, {})
        assert not events(second, "settings.differed") + events(third, "settings.differed")


def test_check_and_status_name_what_differs(
    redis_server: RedisServer,
    nats_server: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    addresses = {"redis_url": redis_server.url, "nats_url": nats_server.url}
    for name, value in {**addresses, "http_port": "0"}.items():
        monkeypatch.setenv(f"BRIDGE_{name.upper()}", value)

    def status(*flags: str) -> str:
        assert main(["status", *flags]) == 0
        return capsys.readouterr().out

    with Bridge({f"BRIDGE_{name.upper()}": value for name, value in addresses.items()}) as bridge:
        asyncio.run(bridge.ready())
        assert examine(0)["Redis/settings"]["level"] == "pass"
        told = json.loads(status("--json"))
        assert told["lease"]["settings"]["BRIDGE_KEYS"] == "*"
        assert told["settings_differ"] == {}
        assert "has others than this command" not in status()
        for name, value in OTHERS.items():
            monkeypatch.setenv(name, value)
        row = examine(0)["Redis/settings"]
        assert (row["level"], DIFFERENCES in row["found"]) == ("warn", True)
        assert [*json.loads(status("--json"))["settings_differ"].values()] == [DIFFERENCES]
        assert "has others than this command" in status()
        monkeypatch.setenv("BRIDGE_SHARDS", "2")
        row = examine(1)["Redis/settings"]
        assert (row["level"], "has 1 shard, and BRIDGE_SHARDS is 2" in row["found"]) == ("fail", True)
        assert row["remedy"].startswith("set BRIDGE_SHARDS to 1 ")
