"""A Redis Cluster of real servers, as objects that tests start, stop, signal, and cut off from each other.

    async with RedisCluster.of(kind) as cluster:
        first, *_ = await cluster.primaries()
        await cluster.move_slots(range(100), first)
        (replica,) = await cluster.replicas(first)
        first.kill()
        await cluster.promoted(replica)

Nobody but this module tells the nodes what they are: no other tool is needed.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from redis.asyncio.cluster import ClusterNode
from redis.asyncio.cluster import RedisCluster as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from tests.support.redis.nodes import ANSWER_SECONDS, Nodes, slot_of
from tests.support.servers import PATIENCE, RedisServer, require, wait_until

PRIMARIES = 3
BATCH = 100
"""How many keys one MIGRATE carries."""


class RedisCluster(Nodes):
    """`async with RedisCluster.of(kind) as cluster:`."""

    def __init__(
        self, stack: AsyncExitStack, kind: type[RedisServer], config: Mapping[str, str], *, parting: bool
    ) -> None:
        super().__init__(stack, kind, config, parting=parting)
        self.client: Client
        """For what the user's services do. It follows the slots, and tries again through a failover."""
        self.carried: set[str] = set()
        """The keys that MIGRATE has carried: it counts deadlines anew, so they may be some milliseconds later."""
        self.migrated: set[int] = set()
        """The slots that were on their way: a key may expire there before anybody could record its deadline."""

    @classmethod
    @asynccontextmanager
    async def of(
        cls,
        kind: type[RedisServer],
        *,
        primaries: int = PRIMARIES,
        replicas: int = 1,
        config: Mapping[str, str] | None = None,
        parting: bool = False,
    ) -> AsyncIterator["RedisCluster"]:
        """Start it, with so many replicas of each primary; every slot is served, and the replicas are in step.

        With `parting`, nodes can be cut off from each other: their bus goes through this event loop then.
        """
        require(kind)
        async with AsyncExitStack() as stack:
            cluster = cls(stack, kind, config or {}, parting=parting)
            async with asyncio.TaskGroup() as starts:
                for _ in range(primaries * (1 + replicas)):
                    starts.create_task(cluster._start())
            await cluster._form(primaries)
            nodes = [ClusterNode("127.0.0.1", node.port) for node in cluster.nodes]
            patient = Retry(NoBackoff(), 300)  # it waits in between by itself, or takes some time to look around
            cluster.client = Client(
                startup_nodes=nodes, decode_responses=True, protocol=2, retry=patient, socket_timeout=ANSWER_SECONDS
            )
            stack.push_async_callback(cluster.client.aclose)
            yield cluster

    def has_moved(self, key: str) -> bool:
        """Whether the key was on another node before, for all that is known."""
        return key in self.carried or slot_of(key) in self.migrated

    # Slots that move.

    async def open_slot(self, slot: int, to: RedisServer) -> None:
        """Its keys may go now: it is importing there, and migrating here."""
        source = await self.owner_of_slot(slot)
        self.migrated.add(slot)
        await self.ask(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", self._ids[source])
        await self.ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self._ids[to])

    async def move_keys(self, slot: int, to: RedisServer, limit: int = 1_000_000) -> list[str]:
        """Carry the keys of an open slot, or so many of them; returns those that were there to be carried."""
        source, moved = await self.owner_of_slot(slot), list[str]()
        while len(moved) < limit:
            keys = await self.ask(source, "CLUSTER", "GETKEYSINSLOT", slot, min(BATCH, limit - len(moved)))
            if not keys:
                break
            self.carried.update(keys)
            moved += keys
            await self.ask(source, "MIGRATE", "127.0.0.1", to.port, "", 0, 30_000, "KEYS", *keys)
        return moved

    async def close_slot(self, slot: int, to: RedisServer) -> None:
        """It belongs to that node now. First the new owner is told, so that no moment is without one."""
        for node in [to, *(node for node in await self.primaries() if node is not to)]:
            try:
                await self.ask(node, "CLUSTER", "SETSLOT", slot, "NODE", self._ids[to])
            except ResponseError as error:  # it has lost its last slot, and heard of that: it is a replica by now
                if "SETSLOT only with" not in str(error):
                    raise

    async def take_back(self, slot: int, to: RedisServer, source: RedisServer) -> None:
        """Let an open slot stay where it was, with the keys that were carried."""
        await self.ask(source, "CLUSTER", "SETSLOT", slot, "STABLE")
        while keys := await self.ask(to, "CLUSTER", "GETKEYSINSLOT", slot, BATCH):
            self.carried.update(keys)
            await self.ask(to, "MIGRATE", "127.0.0.1", source.port, "", 0, 30_000, "KEYS", *keys)
        await self.ask(to, "CLUSTER", "SETSLOT", slot, "STABLE")

    async def move_slot(self, slot: int, to: RedisServer) -> None:
        """All three, as `redis-cli --cluster reshard` does it."""
        await self.open_slot(slot, to)
        await self.move_keys(slot, to)
        await self.close_slot(slot, to)

    async def move_slots(self, slots: Iterable[int], to: RedisServer) -> None:
        """One after the other, whatever happens meanwhile. Those that are there already stay."""
        for slot in slots:
            while await self.owner_of_slot(slot) is not to:
                with suppress(RedisError):  # a node is down, and so all of the cluster for a moment
                    await self.move_slot(slot, to)

    async def begin_migration(self, slots: range, to: RedisServer) -> RedisServer:
        """The atomic way of Valkey 9. Returns the node that they leave."""
        source = await self.owner_of_slot(slots[0])
        self.migrated.update(slots)
        await self.ask(source, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slots[0], slots[-1], "NODE", self._ids[to])
        return source

    async def migrations(self, node: RedisServer) -> list[dict[str, Any]]:
        """What a Valkey says of its atomic migrations, the newest first."""
        answer = await self.ask(node, "CLUSTER", "GETSLOTMIGRATIONS")
        return [dict(zip(one[::2], one[1::2], strict=True)) for one in answer]

    async def migrate(self, slots: range, to: RedisServer) -> None:
        """Begin such a migration, and return when it is done."""
        source = await self.begin_migration(slots, to)

        async def is_done() -> bool:
            newest = (await self.migrations(source))[0]
            if newest["state"] in {"failed", "cancelled"}:
                raise RuntimeError(f"the migration failed: {newest}")
            return bool(newest["state"] == "success")

        await wait_until(is_done, lambda: f"the migration\n{source.log()}", PATIENCE)

    # Nodes that come and go.

    async def add_node(self, *, replica_of: RedisServer | None = None) -> RedisServer:
        """A fresh one, that all know: a primary without slots, or a replica."""
        known = self.nodes[0]
        node = await self._start()
        await self._meet(node, known)
        if replica_of is not None:
            await self._replicate(node, replica_of)
        await self.settled()
        return node

    async def remove(self, node: RedisServer) -> None:
        """Stop it, and let all others forget it. It must have no slots."""
        node.kill()
        self.nodes.remove(node)
        id_ = self._ids.pop(node)
        for other in self.nodes:
            if other.running:
                await self.ask(other, "CLUSTER", "FORGET", id_)

    async def fail_over(self, replica: RedisServer) -> None:
        """Have it promoted, without need, and without loss; return when it has begun with that."""

        async def is_begun() -> bool:
            try:
                await self.ask(replica, "CLUSTER", "FAILOVER")
            except ResponseError:  # it is not in step with its primary
                return False
            return True

        await wait_until(is_begun, lambda: f"a failover\n{replica.log()}", PATIENCE)

    async def cut_off(self, node: RedisServer) -> None:
        """No other node reaches a primary any more, nor it them; clients do. Its replicas lose it, too."""
        self._cut.add(node)
        for other, link in self._links.items():
            if other is node:
                link.refuse()
                link.cut()
            else:
                link.barred.add(self._source(node))
                link.cut(lambda connection: connection.source == self._source(node))
        await self.ask(node, "ACL", "SETUSER", "replica", "off")
        await self.ask(node, "CLIENT", "KILL", "TYPE", "replica")

    async def heal(self, node: RedisServer) -> None:
        """End that; return when all agree again."""
        for other, link in self._links.items():
            if other is node:
                await link.accept()
            else:
                link.barred.discard(self._source(node))
        await self.ask(node, "ACL", "SETUSER", "replica", "on")
        self._cut.discard(node)
        await self.settled()

    def _source(self, node: RedisServer) -> str:
        """The address that it connects from."""
        return node.config["bind-source-addr"]
