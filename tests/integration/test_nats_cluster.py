"""A JetStream cluster: its leader is killed, and frozen, while keys expire. Everything is stored, and once."""

import asyncio
import json
from collections import Counter

import pytest
from nats.js.api import StreamConfig

from bridge.clock import SystemClock
from bridge.errors import NotConnected
from bridge.limits import JetStreamLimits
from bridge.settings import Settings
from bridge.sinks.jetstream import JetStreamSink
from tests.integration.doctor import Rows, examine
from tests.support.brokers.nats_cluster import NatsCluster
from tests.support.brokers.rigs import Observed
from tests.support.deployments.nats_cluster import NatsClusterDeployment
from tests.support.deployments.scene import keys
from tests.support.servers import PATIENCE, NatsServer, RedisServer, start, wait_until

pytestmark = pytest.mark.cluster

COUNT = 200
FEW_LINES = 12
"""Of one event. What is sent again, or not taken, is one line in ten seconds, with its count."""
SPAN_MS = 4000
"""Longer than the others take to elect a leader."""


async def expiring(deployment: NatsClusterDeployment, first: int) -> None:
    """Set keys that expire one after the other from now on; the ledger knows of them."""
    for group in range(20):
        await deployment.set(keys(COUNT // 20, first + group * COUNT // 20), 300 + group * SPAN_MS // 20)


async def led_by_another(deployment: NatsClusterDeployment, former: NatsServer) -> None:
    """Return when the stream has a leader again."""

    async def is_led() -> bool:
        return await deployment.cluster.leader() not in {None, former}

    await wait_until(is_led, "another leader", PATIENCE)


async def test_nothing_is_lost_or_stored_twice_when_the_leader_is_killed_and_then_the_next_one_freezes() -> None:
    async with NatsClusterDeployment.with_cluster(RedisServer) as deployment:
        bridge = await deployment.ready_bridge()
        info = await deployment.cluster.info()
        assert info is not None
        assert info.config.num_replicas == 3, "what the bridge creates in a cluster survives a server"

        await expiring(deployment, 0)
        killed = await deployment.cluster.leader()
        assert killed is not None
        killed.kill()
        await led_by_another(deployment, killed)
        await deployment.delivered()
        await start(killed)
        await deployment.cluster.in_step()

        await expiring(deployment, COUNT)
        frozen = await deployment.cluster.leader()
        assert frozen is not None
        with deployment.cluster.frozen(frozen):
            await led_by_another(deployment, frozen)
            await deployment.set(keys(COUNT, 2 * COUNT))
        await deployment.delivered()
        await bridge.ready(PATIENCE)
        lines = Counter(json.loads(line)["event"] for line in bridge.log().splitlines())
        assert max(lines.values()) <= FEW_LINES, f"the loss of a leader is no line for each batch: {lines}"


async def test_a_stream_has_as_many_copies_as_it_can_have_and_one_is_warned_of(redis_url: str) -> None:
    async with NatsCluster.of() as cluster:

        async def opened(**settings: object) -> list[str]:
            observed = Observed()
            chosen = Settings.model_validate({"nats_url": cluster.url, **settings})
            sink = JetStreamSink(chosen, 0, SystemClock(), JetStreamLimits(), observed)
            await (await sink.connect()).close()
            return observed.warnings

        async def examined() -> Rows:
            return await asyncio.to_thread(examine, 0, redis_url=redis_url, nats_url=cluster.url)

        with pytest.raises(NotConnected, match=r"5 replicas now \(.*\): .* or set BRIDGE_NATS_REPLICAS"):
            await opened(nats_replicas=5)
        async with cluster.client() as client:
            await client.jetstream().add_stream(StreamConfig(name="EXPIRY", subjects=["expired.>"]))
            (warning,) = await opened()
            assert "one copy, in a cluster" in warning
            rows = await examined()
            assert rows["NATS/replicas"]["remedy"] == "nats stream edit EXPIRY --replicas=3"
            await client.jetstream().delete_stream("EXPIRY")
        assert await opened() == []
        await cluster.in_step()
        assert (await examined())["NATS/replicas"]["found"].startswith("3, all in sync, led by n")
        leader = await cluster.leader()
        next(server for server in cluster.servers if server is not leader).kill()

        async def is_told() -> bool:
            return "not in sync" in (await examined())["NATS/replicas"]["found"]

        await wait_until(is_told, "a copy that is offline", PATIENCE)
