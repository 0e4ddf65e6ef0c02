"""What is done to primaries that have replicas."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.chaos.faults import REDIS, Fault, Target, on_all
from tests.chaos.replicated import Clustered, Replicated, Watched
from tests.support.deployments.scene import Scene
from tests.support.servers import RedisServer, start

MOMENT = (0.0, 0.5)
"""Seconds for which a primary may be silent, and is not replaced."""


class Failovers:
    """The faults, as methods: `work` of a `Fault`."""

    def __init__(self, topology: Replicated[Scene]) -> None:
        self._topology = topology

    async def _pair(self, target: Target) -> tuple[RedisServer, RedisServer]:
        """A primary, and its replica."""
        primary = target.chance.choice(await self._topology.primaries())
        return primary, await self._topology.replica(primary)

    @asynccontextmanager
    async def killed(self, target: Target) -> AsyncIterator[None]:
        """SIGKILL; it comes back as a replica."""
        topology, (primary, replica) = self._topology, await self._pair(target)
        with topology.upheaval(topology.group(primary)):
            async with topology.still:
                await topology.written(primary)
                primary.kill()
            async with topology.hasty():
                yield
                await topology.promoted(replica)
            await start(primary)
            await topology.settled()

    @asynccontextmanager
    async def frozen(self, target: Target) -> AsyncIterator[None]:
        """SIGSTOP until it was replaced. For a moment it may believe to be a primary still, when it goes on."""
        topology, (primary, replica) = self._topology, await self._pair(target)
        with topology.upheaval(topology.group(primary)):
            async with topology.still:
                await topology.written(primary)
                primary.pause()
            async with topology.hasty():
                yield
                await topology.promoted(replica)
            async with topology.still:
                primary.resume()
                await topology.settled()

    @asynccontextmanager
    async def frozen_for_a_moment(self, target: Target) -> AsyncIterator[None]:
        """SIGSTOP, SIGCONT."""
        primary, _ = await self._pair(target)
        primary.pause()
        yield
        primary.resume()

    @asynccontextmanager
    async def told(self, target: Target) -> AsyncIterator[None]:
        """Have its replica promoted."""
        topology, (primary, replica) = self._topology, await self._pair(target)
        with topology.upheaval(topology.group(primary)):
            await topology.make_way(primary, replica)
            yield
            await topology.settled()

    def all(self) -> list[Fault]:
        """All of them."""
        return [
            Fault("primary killed", REDIS, self.killed, seconds=(0, 3), weight=12),
            Fault("primary frozen", REDIS, self.frozen, weight=12),
            Fault("primary told to make way", REDIS, self.told, seconds=(0, 1), weight=12),
            Fault("primary frozen for a moment", REDIS, self.frozen_for_a_moment, seconds=MOMENT),
        ]


def with_sentinels(topology: Watched) -> list[Fault]:
    """All faults where sentinels watch a primary."""
    return [*on_all(), *Failovers(topology).all()]


def in_a_cluster(topology: Clustered) -> list[Fault]:
    """What can be done to the primaries of a cluster, and to all else but its slots."""

    @asynccontextmanager
    async def cut_off(target: Target) -> AsyncIterator[None]:
        """Let no other node reach a primary; the bridges do."""
        primary = target.chance.choice(await topology.primaries())
        replica = await topology.replica(primary)
        with topology.upheaval(topology.group(primary)):
            async with topology.still:
                await topology.written(primary)
                await topology.cluster.cut_off(primary)
                await topology.promoted(replica)
            yield
            async with topology.still:
                await topology.cluster.heal(primary)

    return [*on_all(), *Failovers(topology).all(), Fault("primary cut off", REDIS, cut_off, seconds=(0, 4), weight=12)]
