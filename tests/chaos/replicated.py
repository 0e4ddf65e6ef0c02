"""What a run goes on whose primaries have replicas: a group that sentinels watch, or a cluster.

Replication is asynchronous: what a primary has acknowledged may be lost with it. So the writer stands still, and the
replica has all that it has written or seen, whenever a primary is about to lose its role. What the bridges write at
that time may well be lost.
"""

from abc import abstractmethod
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Self

from tests.chaos.ground import Record
from tests.chaos.topology import ONLY, Home, S_co, Topology
from tests.support.deployments.cluster import ClusterDeployment
from tests.support.deployments.sentinel import SentinelDeployment
from tests.support.redis.commands import run
from tests.support.redis.nodes import slot_of
from tests.support.servers import PATIENCE, RedisServer, wait_until

NUMBERS = 32
"""More ledgers than the primaries of a cluster ever have, one after the other."""
REPLICATED_MS = 1_000
"""For which a replica is asked, before it is asked again."""
DOWN_AFTER_MS = 2_500
"""When a primary of a cluster is replaced that is silent: no busy machine may do that, for it is not expected."""


class Replicated(Topology[S_co]):
    """What both have in common."""

    silence = 3.0

    def group(self, primary: RedisServer) -> str:
        """A primary and its replica, whichever is which by now, are a place."""
        return ONLY

    @abstractmethod
    async def replica(self, primary: RedisServer) -> RedisServer:
        """A replica of it."""

    @abstractmethod
    async def promoted(self, replica: RedisServer) -> None:
        """Return when it is the primary, for all."""

    @abstractmethod
    async def settled(self) -> None:
        """Return when all agree, and replicas are in step."""

    @abstractmethod
    async def make_way(self, primary: RedisServer, replica: RedisServer) -> None:
        """Have the replica promoted, without need."""

    def hasty(self) -> AbstractAsyncContextManager[None]:
        """A primary is silent: whoever watches it may take that for its death."""
        return nullcontext()

    async def written(self, primary: RedisServer) -> None:
        """Return when a replica has all that was written until now."""

        async def is_written() -> bool:
            async with self.client(primary).pipeline(transaction=False) as pipeline:
                pipeline.execute_command("FUNCTION", "FLUSH")  # a write that touches no key, so any node takes it
                pipeline.wait(1, REPLICATED_MS)
                return bool((await pipeline.execute())[-1])

        await wait_until(is_written, "the replica", PATIENCE)


class Watched(Replicated[SentinelDeployment]):
    """A primary with a replica, and three sentinels."""

    async def primaries(self) -> list[RedisServer]:
        """See `Topology`."""
        found: RedisServer | None = None

        async def is_found() -> bool:
            nonlocal found
            found = await self.scene.group.primary()
            return found is not None

        await wait_until(is_found, "a primary", PATIENCE)
        assert found is not None
        return [found]

    async def replica(self, primary: RedisServer) -> RedisServer:
        """See `Replicated`."""
        (replica,) = (node for node in self.scene.group.nodes if node is not primary)
        return replica

    async def promoted(self, replica: RedisServer) -> None:
        """See `Replicated`."""
        await self.scene.group.promoted(replica)

    async def settled(self) -> None:
        """See `Replicated`."""
        await self.scene.group.prepared()

    def hasty(self) -> AbstractAsyncContextManager[None]:
        """See `Replicated`."""
        return self.scene.group.hasty()

    async def make_way(self, primary: RedisServer, replica: RedisServer) -> None:
        """See `Replicated`. What is written to the former primary until it hears of that is lost."""
        async with self.still:
            await self.written(primary)
            await self.scene.group.fail_over()
            await self.settled()


class Clustered(Replicated[ClusterDeployment]):
    """Several primaries, each with a replica; slots move."""

    ledgers = tuple(f"{{expiry-bridge:0:{number}}}:deadlines" for number in range(NUMBERS))

    def __init__(self, scene: ClusterDeployment) -> None:
        super().__init__(scene)
        self.cluster = scene.cluster
        self.moved_slots: set[int] = set()
        """All that ever left the node that had them first."""
        self._first: Home
        self._groups: dict[RedisServer, str] = {}

    async def __aenter__(self) -> Self:
        self._first = await self.cluster.owners()
        for primary in await self.primaries():
            for node in (primary, *await self.cluster.replicas(primary)):
                self._groups[node] = str(primary.port)
        return self

    async def primaries(self) -> list[RedisServer]:
        """See `Topology`."""
        return await self.cluster.primaries()

    async def locate(self) -> Home:
        """See `Topology`."""
        return await self.cluster.owners()

    def moved(self, key: str) -> bool:
        """See `Topology`."""
        return slot_of(key) in self.moved_slots

    def group(self, primary: RedisServer) -> str:
        """See `Replicated`."""
        return self._groups.setdefault(primary, str(primary.port))

    def place(self, key: str) -> str | None:
        """See `Topology`."""
        return None if self.moved(key) else self._groups[self._first(key)]

    def places(self, gap: Record) -> Collection[str]:
        """See `Topology`."""
        return [group for node, group in self._groups.items() if gap["node"] == f"127.0.0.1:{node.port}"]

    async def replica(self, primary: RedisServer) -> RedisServer:
        """See `Replicated`."""
        return (await self.cluster.replicas(primary))[0]

    async def promoted(self, replica: RedisServer) -> None:
        """See `Replicated`."""
        await self.cluster.promoted(replica)

    async def settled(self) -> None:
        """See `Replicated`."""
        await self.cluster.settled()

    async def make_way(self, primary: RedisServer, replica: RedisServer) -> None:
        """See `Replicated`. Nothing is lost by that, so the writer goes on."""
        await self.cluster.fail_over(replica)
        await self.cluster.promoted(replica)

    async def occupied(self, node: RedisServer) -> list[int]:
        """Slots of a node in which users' keys are."""
        return sorted({slot_of(key) for key in await self.cluster.ask(node, "KEYS", "share:*")})

    async def adopted(self) -> None:
        """Return when each primary has one ledger, its own."""

        async def are_adopted() -> bool:
            for node in await self.primaries():
                own = f"{{expiry-bridge:0:{await self.cluster.number(node)}}}:"
                keys = await run(self.client(node), "KEYS", "{expiry-bridge:0:*}:*")
                of_ledgers = [key for key in keys if key.endswith((":deadlines", ":moved", ":outbox", ":lease"))]
                if f"{own}lease" not in keys or not all(key.startswith(own) for key in of_ledgers):
                    return False
            return True

        await wait_until(are_adopted, self.logs, PATIENCE)
