"""The ledger protocol on nodes of a Redis Cluster, in epochs whose steps the test takes: see `hand.py`."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count

from redis.asyncio import Redis

from bridge.clock import SystemClock
from bridge.limits import EpochLimits, Limits
from bridge.redis.epoch.attempt import Attempt, Ears
from bridge.redis.epoch.placement import Placement
from bridge.redis.epoch.shard import ClusterState, Runtime, Shard
from bridge.redis.protocol.budget import Budget
from bridge.redis.protocol.migrated_keys import MigratedKeys, RecentClaims
from bridge.redis.protocol.notifications import channels
from bridge.redis.protocol.schedule import RedisClock
from bridge.redis.protocol.watermarks import Watermarks
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.topology import Topology
from bridge.settings import Settings
from bridge.telemetry.events import Telemetry
from tests.support.harness.hand import Hand
from tests.support.harness.user import LAZY, NAMES
from tests.support.redis.cluster import RedisCluster
from tests.support.redis.commands import lazily, user_of
from tests.support.redis.nodes import slot_of
from tests.support.servers import RedisServer, wait_until


class ClusterHand(Hand):
    """Of any ledger on a node, also of one that is no primary's."""

    def __init__(self, topology: Topology, claims: RecentClaims, server: RedisServer, number: int) -> None:
        """`claims`: of all epochs."""
        self.names = NAMES.of(number)
        self._topology = topology
        self._claims = claims
        self.migrated: MigratedKeys
        endpoint = topology.endpoint.at(("127.0.0.1", server.port))
        super().__init__(server, instance=f"hand-{number}", endpoint=endpoint)

    def _migrated_keys(self) -> MigratedKeys:
        away = partial(self._topology.away, self.names.shard)
        self.migrated = MigratedKeys(away, self._claims, EpochLimits(), self.gap, self.gap.start_ms)
        return self.migrated

    def placement(self) -> Placement:
        """What hands entries over to other nodes."""
        clock, limits = SystemClock(), Limits()
        runtime = Runtime(self._settings, self._instance, clock, limits)
        cluster = ClusterState(self._topology, self._claims, Watermarks())
        shard = Shard(
            runtime,
            self.names,
            (),
            self._outbox,
            RedisClock(clock),
            Telemetry().shard(),
            Budget(EpochLimits()),
            cluster,
        )
        assert self._subscription is not None
        ears = Ears(self._subscription, self.inbox, self._wake, channels(0), b"", complete=True, present=False)
        attempt = Attempt(shard, self._endpoint, self.ledger, self.lease, ears, self.gap, 0, audited=False)
        return Placement(attempt, self._topology, self._scope, self.migrated, lambda: None)

    async def place(self) -> None:
        """Place what is in `…:moved`."""
        self.migrated.begin_pass(await self.ledger.now_ms())
        self.migrated.arrivals.extend(await self.ledger.moved(0, 1000))
        while self.migrated.arrivals:
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
        self._claims = RecentClaims(EpochLimits())
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
        return await self._stack.enter_async_context(ClusterHand(self.topology, self._claims, node, number))

    def another_process(self) -> None:
        """What bridges know is gone, but for what is in Redis."""
        self._claims = RecentClaims(EpochLimits())

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
