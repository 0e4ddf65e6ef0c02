"""What runs go on: a deployment, what is known of where things are in it, and what can be done to it.

CHAOS_TOPOLOGY chooses, by names with commas between them; without it there are all.
"""

import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from tests.chaos.failovers import in_a_cluster, with_sentinels
from tests.chaos.faults import Fault, on_one_redis
from tests.chaos.replicated import DOWN_AFTER_MS, Clustered, Watched
from tests.chaos.slots import Slots
from tests.chaos.topology import SHARDS, Shards, Topology
from tests.support.brokers.kafka import KafkaServer
from tests.support.deployments.cluster import ClusterDeployment
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.kafka import KafkaDeployment
from tests.support.deployments.scene import DURABLE, Scene
from tests.support.deployments.sentinel import SentinelDeployment
from tests.support.kinds import KINDS

SEED = os.environ.get("CHAOS_SEED") or str(random.randrange(1_000_000))
SECONDS = float(os.environ.get("CHAOS_SECONDS", "6"))
SETTINGS = {"BRIDGE_OUTBOX_LIMIT": "300"}
"""Soon reached while the broker is away."""

Case = tuple[Topology[Scene], Sequence[Fault]]
Kafka = Callable[[], KafkaServer]


@asynccontextmanager
async def single(_: Kafka) -> AsyncIterator[Case]:
    """One Redis, and JetStream."""
    async with Deployment.of(KIND_OF["single"], redis=DURABLE, settings=SETTINGS) as scene, Topology(scene) as one:
        yield one, on_one_redis()


@asynccontextmanager
async def kafka(server: Kafka) -> AsyncIterator[Case]:
    """One Redis, and Kafka."""
    opening = KafkaDeployment.of(KIND_OF["kafka"], server(), redis=DURABLE, settings=SETTINGS)
    async with opening as scene, Topology(scene) as one:
        yield one, on_one_redis()


@asynccontextmanager
async def shards(_: Kafka) -> AsyncIterator[Case]:
    """One Redis, with a ledger in several parts."""
    settings = {**SETTINGS, "BRIDGE_SHARDS": str(SHARDS)}
    async with Deployment.of(KIND_OF["shards"], redis=DURABLE, settings=settings) as scene, Shards(scene) as parts:
        yield parts, on_one_redis()


@asynccontextmanager
async def sentinel(_: Kafka) -> AsyncIterator[Case]:
    """A primary, a replica, and three sentinels."""
    opening = SentinelDeployment.with_sentinels(KIND_OF["sentinel"], settings=SETTINGS)
    async with opening as scene, Watched(scene) as watched:
        yield watched, with_sentinels(watched)


@asynccontextmanager
async def cluster(_: Kafka) -> AsyncIterator[Case]:
    """Three primaries, each with a replica."""
    config = {"cluster-node-timeout": str(DOWN_AFTER_MS)}
    opening = ClusterDeployment.with_cluster(KIND_OF["cluster"], redis=config, parting=True, settings=SETTINGS)
    async with opening as scene, Clustered(scene) as clustered:
        yield clustered, [*in_a_cluster(clustered), *Slots(clustered).all()]


CASES: dict[str, Callable[[Kafka], AbstractAsyncContextManager[Case]]] = {
    "single": single,
    "kafka": kafka,
    "shards": shards,
    "sentinel": sentinel,
    "cluster": cluster,
}
_CHANCE = random.Random(SEED)
KIND_OF = {
    **dict(zip(("single", "kafka"), _CHANCE.sample(KINDS, 2), strict=True)),
    **{name: _CHANCE.choice(KINDS) for name in ("shards", "sentinel", "cluster")},
}
"""The kind of Redis is the seed's choice; a run of all has both."""


def chosen() -> list[str]:
    """The names of those that CHAOS_TOPOLOGY chooses."""
    wanted = os.environ.get("CHAOS_TOPOLOGY", "all").split(",")
    if unknown := set(wanted) - {*CASES, "all"}:
        raise pytest.UsageError(f"CHAOS_TOPOLOGY knows no {', '.join(unknown)}: there are {', '.join(CASES)}, and all")
    return [name for name in CASES if name in wanted or "all" in wanted]
