"""Redis behind Sentinel: the primary is found, and nothing that its successor still has is lost when it is gone."""

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bridge.commands.embedded import free_port
from bridge.errors import NotConnected, Refused
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.primary import Primary
from bridge.settings import Settings
from tests.integration.doctor import SOUND, examine, levels
from tests.integration.oracle import QUICK, World
from tests.support.contract import LEDGER
from tests.support.deployments.scene import keys
from tests.support.deployments.sentinel import SentinelDeployment
from tests.support.deployments.telemetry import events
from tests.support.harness.inside import SOON, Inside
from tests.support.kinds import on_both_kinds
from tests.support.redis.commands import run
from tests.support.redis.sentinel import SERVICE, Group, SentinelServer, role
from tests.support.servers import PATIENCE, Bridge, NatsServer, RedisServer, require, start, wait_until

pytestmark = pytest.mark.cluster

FLAGS = "notify-keyspace-events"
COUNT = int(300 * float(os.environ.get("CHAOS_KEYS", "1")))
"""Keys that expire through each failover; CHAOS_KEYS is a factor, as in `tests/chaos/test_acceptance.py`."""
SPAN_MS = 3000
"""About as long as a failover takes."""
PASSWORD = "the-sentinels-own"
SAFE = {**SOUND, "min-replicas-to-write": "1"}
"""The configuration of a Redis behind Sentinel in which nothing is to be fixed."""


async def expiring(deployment: SentinelDeployment, first: int, replica: RedisServer) -> None:
    """Set keys that expire one after the other through a failover; return when the replica, too, knows of all."""
    await deployment.record(keys(COUNT, first))
    for group in range(20):
        await deployment.set(keys(COUNT // 20, first + group * COUNT // 20), 1500 + group * SPAN_MS // 20)
    await deployment.recorded_by(replica, LEDGER)


async def moved(deployment: SentinelDeployment, node: RedisServer) -> None:
    """That node is the primary. Return when the bridge works on it, and keys are set there that it has to announce."""
    await deployment.follow()
    await deployment.set(keys(20, 10_000 + len(deployment.expected)), 1500)
    (bridge,) = deployment.bridges
    name = f"127.0.0.1:{node.port}"
    await wait_until(
        lambda: events(bridge, "primary.located")[-1]["node"] == name and events(bridge, "gap.closed"),
        lambda: f"the bridge at {name}\n{bridge.log()}",
        PATIENCE,
    )
    await bridge.ready(PATIENCE)
    flags = (await deployment.redis.config_get(FLAGS))[FLAGS]
    assert flags is not None
    assert set("Egxe") <= set(flags)


@pytest.mark.timeout(240)
async def test_nothing_is_lost_or_stored_twice_when_the_primary_freezes_is_killed_or_is_told_to_make_way() -> None:
    await on_both_kinds(three_failovers)


async def three_failovers(kind: type[RedisServer]) -> None:
    """Freeze the first primary until it was replaced; when it has come back as a replica, kill the second one; when
    that has come back, move once more without need.
    """  # noqa: D205 - one sentence
    async with SentinelDeployment.with_sentinels(kind) as deployment:
        first, second = deployment.group.nodes
        bridge = await deployment.ready_bridge()
        await expiring(deployment, 0, second)
        first.pause()
        await deployment.group.replaced(first)
        await moved(deployment, second)
        first.resume()
        await wait_until(lambda: is_replica(first), "the demotion", PATIENCE)
        await deployment.delivered()
        await deployment.group.prepared()

        await expiring(deployment, COUNT, first)
        second.kill()
        await deployment.group.replaced(second)
        await moved(deployment, first)
        await deployment.delivered()
        await start(second)
        await deployment.group.prepared()

        # Now both are alive, and for a moment both believe to be the primary.
        await expiring(deployment, 2 * COUNT, second)
        await deployment.group.fail_over()
        await moved(deployment, second)
        await deployment.delivered()
        gaps = await deployment.gaps()
        assert [gap["node"] for gap in gaps] == [f"127.0.0.1:{node.port}" for node in (first, second, first, second)]
        assert all("entinel" in gap["cause"] or "Redis" in gap["cause"] for gap in gaps[1:]), gaps
        assert sum(gap["recovered"] + gap["ambiguous"] for gap in gaps) > 0, "nothing expired in a failover"
        ended = {line["ending"] for line in events(bridge, "epoch.ended")}
        assert ended <= {"demoted", "connection_lost", "silent"}, ended


async def is_replica(node: RedisServer) -> bool:
    """Whether it says so."""
    return await role(node) == "slave"


# What the sentinels say, and what they do not.


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    """A primary with a replica, and three sentinels that want a password; for tests that leave it as it was."""

    async def opened(stack: AsyncExitStack) -> Group:
        return await stack.enter_async_context(Group.of(RedisServer, redis=SAFE, password=PASSWORD))

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            yield runner.run(opened(stack))
        finally:
            runner.run(stack.aclose())


async def located(url: str, **settings: str) -> Endpoint:
    """The primary, as the bridge finds it."""
    primary = Primary(Endpoint.of(Settings.model_validate({"redis_url": url, **settings})))
    try:
        await primary.locate()
        return primary.endpoint
    finally:
        await primary.close()


async def test_one_sentinel_that_answers_is_enough_whatever_the_others_do(group: Group) -> None:
    frozen, dead, alive = group.sentinels[0], SentinelServer(group.nodes[0]), group.sentinels[1]
    frozen.pause()
    try:
        endpoint = await located(group.url_of(frozen, dead, alive), redis_sentinel_password=PASSWORD)
    finally:
        frozen.resume()
    assert (endpoint.host, endpoint.port) == ("127.0.0.1", group.nodes[0].port)


async def test_where_no_sentinel_answers_each_is_told_of(group: Group) -> None:
    nowhere = [SentinelServer(group.nodes[0]), SentinelServer(group.nodes[0])]
    with pytest.raises(NotConnected, match="no sentinel answers") as caught:
        await located(group.url_of(*nowhere))
    assert all(
        f"Sentinel at 127.0.0.1:{sentinel.port} cannot be reached: " in str(caught.value) for sentinel in nowhere
    )


@pytest.mark.parametrize("given", [{}, {"redis_sentinel_password": "wrong"}, {"redis_password": PASSWORD}])
async def test_a_login_that_the_sentinels_refuse_names_their_own_settings(group: Group, given: dict[str, str]) -> None:
    with pytest.raises(Refused, match="refuses the login") as caught:
        await located(group.url, **given)
    assert "check BRIDGE_REDIS_SENTINEL_USERNAME and BRIDGE_REDIS_SENTINEL_PASSWORD" in str(caught.value)
    assert PASSWORD not in str(caught.value)


async def test_a_service_that_the_sentinels_do_not_monitor_is_told_with_the_remedy(group: Group) -> None:
    with pytest.raises(Refused, match="monitors no service 'nobody': check the service in BRIDGE_REDIS_URL"):
        await located(group.url_of(*group.sentinels, service="nobody"), redis_sentinel_password=PASSWORD)


async def test_a_redis_is_no_sentinel(group: Group) -> None:
    with pytest.raises(Refused, match="is no sentinel: check the hosts and ports in BRIDGE_REDIS_URL"):
        await located(group.url_of(group.nodes[0]))


async def test_a_sentinel_user_without_the_rights_is_told_which(group: Group) -> None:
    (sentinel, *_) = group.sentinels
    async with Redis(port=sentinel.port, password=PASSWORD, protocol=2) as client:
        await run(client, "ACL", "SETUSER", "narrow", "on", f">{PASSWORD}", "+client|setname", "+ping")
        narrow = {"redis_sentinel_username": "narrow", "redis_sentinel_password": PASSWORD}
        with pytest.raises(Refused, match=r"\+sentinel\|get-master-addr-by-name \+sentinel\|master"):
            await located(group.url_of(sentinel), **narrow)
        rights = ("+sentinel|get-master-addr-by-name", "+sentinel|master")
        await run(client, "ACL", "SETUSER", "narrow", *rights)
        assert (await located(group.url_of(sentinel), **narrow)).port == group.nodes[0].port


async def test_a_replica_that_a_sentinel_names_is_not_taken(group: Group) -> None:
    async with Group.of(RedisServer) as other:
        first, second = other.nodes
        for sentinel in other.sentinels:  # else they would fix it
            sentinel.pause()
        async with Redis(port=first.port) as client:
            await run(client, "REPLICAOF", "127.0.0.1", second.port)
        other.sentinels[0].resume()
        with pytest.raises(NotConnected, match=r"is a replica \(role slave\).*Sentinel will name the primary"):
            await located(other.url_of(other.sentinels[0]))


async def test_redis_and_sentinels_are_spoken_to_over_tls(certificates: Path) -> None:
    require(RedisServer)
    tls = {
        "tls-cert-file": str(certificates / "server.pem"),
        "tls-key-file": str(certificates / "server.key"),
        "tls-ca-cert-file": str(certificates / "ca.pem"),
        "tls-auth-clients": "no",
        "tls-replication": "yes",
    }
    port, sentinel_port = free_port(), free_port()
    with RedisServer({**tls, "tls-port": str(port)}) as server:
        watched = (port, {**tls, "tls-port": str(sentinel_port)})
        with SentinelServer(server, tls=watched) as sentinel:
            trusted = {"redis_tls_ca_file": str(certificates / "ca.pem")}
            over = f"rediss+sentinel://127.0.0.1:{sentinel_port}/{SERVICE}"
            assert (await located(over, **trusted)).port == port
            with pytest.raises(
                Refused, match=r"certificate of Sentinel at .* is not trusted .*: check BRIDGE_REDIS_TLS_CA_FILE"
            ):
                await located(over)
            plain = f"rediss+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}"
            assert (await located(plain, **trusted, redis_sentinel_tls="off")).port == port
            settings = {
                "BRIDGE_REDIS_URL": over,
                "BRIDGE_REDIS_TLS_CA_FILE": trusted["redis_tls_ca_file"],
                "BRIDGE_SINK": "stdout",
            }
            async with Bridge(settings) as bridge:
                await bridge.ready()


# The commands.


async def test_the_doctor_looks_at_the_sentinels_and_at_the_primary_that_they_name(group: Group) -> None:
    given = {"redis_sentinel_password": PASSWORD, "sink": "stdout"}
    rows = await asyncio.to_thread(examine, 0, redis_url=group.url, **given)
    port = group.nodes[0].port
    assert levels(rows) == {}
    assert rows["Redis/connection"]["found"] == f"127.0.0.1:{port}, db 0, as user default"
    names = f"name 127.0.0.1:{port} as the primary of {SERVICE}"
    assert rows["Redis/sentinels"]["found"] == f"3 of 3 {names}; quorum 2 of 3"

    dead = SentinelServer(group.nodes[0])
    async with Redis(port=port) as client:
        await client.config_set("min-replicas-to-write", 0)
        rows = await asyncio.to_thread(examine, 0, redis_url=group.url_of(*group.sentinels, dead), **given)
        await client.config_set("min-replicas-to-write", 1)
    assert levels(rows) == {"Redis/sentinels": "warn", "Redis/cut-off primary": "warn"}
    assert f"3 of 4 {names}; Sentinel at 127.0.0.1:{dead.port} cannot be reached: " in rows["Redis/sentinels"]["found"]

    rows = await asyncio.to_thread(examine, 1, redis_url=group.url_of(dead), **given)
    assert rows["Redis/connection"]["level"] == "fail"
    assert "no sentinel answers" in rows["Redis/connection"]["found"]


async def test_the_other_commands_work_through_sentinels(group: Group, nats_server: NatsServer) -> None:
    settings = {
        "BRIDGE_REDIS_URL": group.url,
        "BRIDGE_REDIS_SENTINEL_PASSWORD": PASSWORD,
        "BRIDGE_NATS_URL": nats_server.url,
    }
    async with Bridge(settings) as bridge, Redis(port=group.nodes[0].port) as user:
        await bridge.ready()
        found = await World(settings, user).verified(*QUICK)
        assert (found["missed"], found["false"]) == (0, 0)
        async with Bridge(settings, "status", "--json") as status, Bridge(settings, "dead", "list") as dead:
            assert await status.exited() == 0
            assert json.loads(status.output())["redis"]["endpoint"] == f"127.0.0.1:{group.nodes[0].port}"
            assert await dead.exited() == 0
            assert dead.output().strip() == "There are no dead letters."
        assert await bridge.stop() == 0


async def test_a_bridge_waits_for_sentinels_and_says_so(group: Group) -> None:
    sentinel = SentinelServer(group.nodes[0])
    settings = {"BRIDGE_REDIS_URL": group.url_of(sentinel), "BRIDGE_SINK": "stdout"}
    async with Bridge(settings) as bridge:
        await wait_until(lambda: events(bridge, "redis.unreached"), bridge.log, PATIENCE)
        assert "no sentinel answers" in events(bridge, "redis.unreached")[0]["reason"]
        try:
            await start(sentinel)
            await bridge.ready(PATIENCE)
        finally:
            sentinel.close()


# A demotion that no sentinel tells of.


async def test_an_epoch_ends_when_its_server_is_made_a_replica_that_still_takes_writes() -> None:
    require(RedisServer)
    with RedisServer() as other, RedisServer({"replica-read-only": "no"}) as server:
        async with Inside(server.port, limits=SOON) as bridge, Redis(port=server.port) as user:
            await bridge.reconciled()
            await run(user, "REPLICAOF", "127.0.0.1", other.port)
            await bridge.ended()
            assert bridge.telemetry.endings[0] == (
                f"Redis at 127.0.0.1:{server.port} is no longer a primary (role slave)"
            )
            await run(user, "REPLICAOF", "NO", "ONE")
            await bridge.reconciled(2)
