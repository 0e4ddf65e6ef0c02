"""The ledger protocol on nodes of a Redis Cluster, in epochs whose steps the test takes: see `hand.py`."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count

from redis.asyncio import Redis

from bridge.redis.protocol.hints import Hints
from bridge.redis.protocol.migrated_keys import Told
from bridge.redis.protocol.notifications import channels
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.topology import Topology
from bridge.settings import Settings
from tests.support.harness.hand import Hand
from tests.support.harness.user import LAZY, NAMES
from tests.support.redis.cluster import RedisCluster
from tests.support.redis.commands import lazily, user_of
from tests.support.redis.nodes import slot_of
from tests.support.servers import RedisServer, wait_until


class ClusterHand(Hand):
    """Of any ledger on a node, also of one that is no primary's."""

    def __init__(self, topology: Topology, server: RedisServer, number: int, instance: str = "hand") -> None:
        self.names = NAMES.of(number)
        self._topology = topology
        self.told: Told
        super().__init__(server, instance=instance, endpoint=topology.endpoint.at(("127.0.0.1", server.port)))

    async def begin(self) -> None:
        """See `Hand`."""
        await super().begin()
        self.told.begin(self.gap)

    def _new_hints(self) -> Hints:
        self.told = Told(partial(self._topology.away, self.names.shard), self._topology.claimed)
        return Hints(self.names, channels(0), self._matches, told=self.told)

    async def place(self) -> None:
        """Place what is in `…:moved`."""
        self.told.look(await self.ledger.now_ms())
        self.hints.moved.extend(await self.ledger.moved(0, 1000))
        while self.hints.moved:
            await self.send(self.batch())

    async def adopt(self, number: int) -> int | str:
        """Take in a part of another ledger: what is left of it."""
        self._seq += 1
        return await self.ledger.adopt(self.lease.fence, self._seq, number)


class Played:
    """Primaries without replicas, on which keys expire only when they are read; and what the bridge knows of them."""

    def __init__(self, stack: AsyncExitStack, cluster: RedisCluster, topology: Topology) -> None:
        self.cluster = cluster
        self.topology = topology
        self.users: dict[RedisServer, Redis] = {}
        """Clients straight to the nodes."""
        self._stack = stack

    @classmethod
    @asynccontextmanager
    async def of(cls, kind: type[RedisServer], primaries: int) -> AsyncIterator["Played"]:
        """Start them."""
        async with (
            RedisCluster.of(kind, primaries=primaries, replicas=0, config=LAZY) as cluster,
            AsyncExitStack() as stack,
        ):
            topology = Topology(Endpoint.of(Settings.model_validate({"redis_url": cluster.url})))
            stack.push_async_callback(topology.close)
            await topology.refresh()
            played = cls(stack, cluster, topology)
            for node in cluster.nodes:
                played.users[node] = await stack.enter_async_context(user_of(node))
                await lazily(played.users[node])
            yield played

    async def hand(self, node: RedisServer, number: int | None = None) -> ClusterHand:
        """An epoch of the node's ledger, or of another one."""
        number = await self.cluster.number(node) if number is None else number
        return await self._stack.enter_async_context(ClusterHand(self.topology, node, number, f"hand-{number}"))

    async def known_there(self, matches: Callable[[], bool]) -> None:
        """Return when the bridge has learned of what the nodes say now."""

        async def is_known() -> bool:
            await self.topology.refresh()
            return matches()

        await wait_until(is_known, "the topology")


def key_of(slot: int, number: int = 0) -> bytes:
    """A key in that slot."""
    tag = next(tag for tag in count() if slot_of(b"%d" % tag) == slot)
    return b"{%d}k%d" % (tag, number)
