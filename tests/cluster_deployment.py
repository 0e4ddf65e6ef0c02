"""A deployment on a Redis Cluster: what was set to expire, wherever it is by now, and what was stored of it."""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from tests.deployment import PATIENCE, Deployment, Stored, now_ms
from tests.redis_cluster import RedisCluster
from tests.servers import Bridge, NatsServer, RedisServer, require, wait_until

DRIFT_MS = 1000
"""How much later a deadline may be once MIGRATE has carried its key: some milliseconds, unless something hangs."""

_SET = """
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[1], ARGV[1], ARGV[i])
  redis.call('SET', ARGV[i], 'some value', 'PXAT', ARGV[1])
end
"""


class ClusterDeployment(Deployment):
    """With a NATS server, no proxies, and bridges on all of the cluster."""

    cluster: RedisCluster

    @classmethod
    @asynccontextmanager
    async def with_cluster(
        cls,
        kind: type[RedisServer],
        *,
        redis: Mapping[str, str] | None = None,
        replicas: int = 1,
        parting: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> AsyncIterator["ClusterDeployment"]:
        """Start the servers, no bridge yet. `replicas` and `parting`: see `RedisCluster`."""
        require(NatsServer)
        async with AsyncExitStack() as stack:
            starting = RedisCluster.of(kind, replicas=replicas, config=redis, parting=parting)
            cluster = await stack.enter_async_context(starting)
            nats_server = stack.enter_context(NatsServer())
            deployment = cls(stack, cluster.nodes[0], nats_server, None, settings)
            deployment.cluster = cluster
            yield deployment
            deployment._end()

    async def start_bridge(self, *, direct: bool = True) -> Bridge:
        """See `Scene`."""
        addresses = {"BRIDGE_REDIS_URL": self.cluster.url, **self._to_broker(direct=True)}
        bridge = Bridge({**addresses, **self.settings})
        self.bridges.append(await self._stack.enter_async_context(bridge))
        return bridge

    # What the user's services do.

    async def _write(self, keys: Sequence[str], ttl_ms: int, *, known: bool) -> int:
        """See `Scene`. What is to be `known` has to be of slots that stay where they are."""
        deadline = now_ms() + ttl_ms
        if not known:
            for key in keys:
                await self.cluster.client.set(key, "some value", pxat=deadline)
            return deadline
        for node, some in (await self._by_owner(keys)).items():
            ledger = f"{{expiry-bridge:0:{await self.cluster.number(node)}}}:deadlines"
            await self.cluster.ask(node, "EVAL", _SET, 1, ledger, deadline, *some)
        return deadline

    async def _by_owner(self, keys: Sequence[str]) -> Mapping[RedisServer, list[str]]:
        nodes = defaultdict[RedisServer, list[str]](list)
        owner = await self.cluster.owners()
        for key in keys:
            nodes[owner(key)].append(key)
        return nodes

    async def recorded(self) -> None:
        """See `Scene`: each key in a ledger of its owner."""

        async def is_recorded() -> bool:
            now = now_ms()
            ahead = {key: deadline for key, deadline in self.expected.values() if deadline > now}
            assert ahead, "all keys expired before they were recorded: is the machine so slow?"
            for node, keys in (await self._by_owner([*ahead])).items():
                if not await self._holds(node, {key: ahead[key] for key in keys}):
                    return False
            return True

        await wait_until(is_recorded, "the ledgers", PATIENCE)

    async def _holds(self, node: RedisServer, deadlines: Mapping[str, int]) -> bool:
        """Whether a node, which may be a replica, has these in its ledger."""
        found = dict[str, int]()
        for ledger in await self.own(node, "deadlines"):
            flat = await self.cluster.ask(node, "ZRANGE", ledger, 0, -1, "WITHSCORES")
            found |= {key: int(score) for key, score in zip(flat[::2], flat[1::2], strict=True)}
        return all(self._fits(key, deadline, found.get(key, 0)) for key, deadline in deadlines.items())

    async def own(self, node: RedisServer, what: str) -> list[str]:
        """The bridge's keys on a node, by the last part of their names."""
        return list(await self.cluster.ask(node, "KEYS", f"{{expiry-bridge:0:*}}:{what}"))

    async def expire_lease(self) -> None:
        """See `Scene`: all of them."""
        for node in await self.cluster.primaries():
            for lease in await self.own(node, "lease"):
                await self.cluster.ask(node, "HSET", lease, "until", 0)

    async def waiting(self) -> int:
        """See `Scene`: in all outboxes."""
        lengths = [
            await self.cluster.ask(node, "XLEN", outbox)
            for node in await self.cluster.primaries()
            for outbox in await self.own(node, "outbox")
        ]
        return sum(lengths)

    # What the consumers see.

    async def stored(self) -> list[Stored] | None:
        """See `Scene`. What MIGRATE has carried is expected at the deadline that it was given then."""
        stored = await super().stored()
        ids = {message.id for message in stored or ()}
        for books in (self.expected, self.excused):
            for id_, (key, deadline) in [(id_, what) for id_, what in books.items() if id_ not in ids]:
                later = [message for message in stored or () if self._is(message, key, deadline)]
                if later:
                    del books[id_]
                    books[later[0].id] = key, later[0].deadline_ms or deadline
        return stored

    def _is(self, message: Stored, key: str, deadline: int) -> bool:
        """Whether a message, that nobody expects, is of that expiration."""
        known = self.expected.keys() | self.excused.keys()
        return message.key == key and message.id not in known and self._fits(key, deadline, message.deadline_ms or 0)

    def _fits(self, key: str, deadline: int, found: int) -> bool:
        """Whether it is that deadline, or what MIGRATE may have made of it."""
        drift = DRIFT_MS if key in self.cluster.carried else 0
        return deadline <= found <= deadline + drift
