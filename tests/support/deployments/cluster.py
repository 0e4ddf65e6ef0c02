"""A deployment on a Redis Cluster: what was set to expire, wherever it is by now, and what was stored of it."""

import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count

from redis.asyncio.cluster import RedisCluster as Client
from redis.exceptions import ClusterDownError, ResponseError
from redis.exceptions import ConnectionError as Unreached

from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.scene import PREFIX, now_ms
from tests.support.deployments.stored import StoredExpiration
from tests.support.proxy import Protocol, Proxy
from tests.support.redis.cluster import RedisCluster
from tests.support.redis.nodes import slot_of
from tests.support.servers import PATIENCE, Bridge, NatsServer, RedisServer, require, wait_until

DRIFT_MS = 1000
"""How much later a deadline may be once MIGRATE has carried its key: some milliseconds, unless something hangs."""

_SET = """
local time = redis.call('TIME')
local deadline = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1])
for i = 2, #ARGV do redis.call('EXISTS', ARGV[i]) end
for i = 2, #ARGV do
  if KEYS[1] then redis.call('ZADD', KEYS[1], deadline, ARGV[i]) end
  redis.call('SET', ARGV[i], 'some value', 'PXAT', deadline)
end
return deadline
"""
"""Sets keys that expire at one moment, and returns it: ledger or nothing, milliseconds from now, keys. From *now*: a
key that is set past its deadline never expires. It fails before it sets any where the slot of one is elsewhere.
"""
_SET_ONE = _SET.replace("KEYS[1]", "nil").replace("2, #ARGV", "1, #KEYS").replace("ARGV[i]", "KEYS[i]")
"""The same with the keys in their place."""


def keys_of(slots: range, start: int = 0) -> Iterator[str]:
    """Names of keys in those slots, without end."""
    return (key for key in (f"{PREFIX}{number}" for number in count(start)) if slot_of(key) in slots)


class ClusterDeployment(Deployment):
    """With a NATS server behind a proxy, and bridges on all of the cluster, without one."""

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
            deployment.nats_link = await stack.enter_async_context(Proxy(nats_server.port, Protocol.NATS))
            yield deployment
            deployment._end()

    async def start_bridge(self, *, direct: bool = False) -> Bridge:
        """See `Scene`."""
        addresses = {"BRIDGE_REDIS_URL": self.cluster.url, **self._to_broker(direct=direct)}
        bridge = Bridge({**addresses, **self.settings})
        self.bridges.append(await self._stack.enter_async_context(bridge))
        return bridge

    @property
    def user(self) -> Client:
        """See `Scene`."""
        return self.cluster.client

    @property
    def servers(self) -> Sequence[RedisServer]:
        """See `Scene`."""
        return self.cluster.nodes

    # What the user's services do.

    async def _write(self, keys: Sequence[str], ttl_ms: int, *, known: bool) -> Mapping[str, int]:
        """See `Scene`. What is to be `known` has to be of slots that stay where they are."""
        deadlines = dict[str, int]()
        for node, some in (await self._by_owner(keys)).items():
            if known:
                ledger = f"{{expiry-bridge:0:{await self.cluster.number(node)}}}:deadlines"
                deadline = await self.cluster.ask(node, "EVAL", _SET, 1, ledger, ttl_ms, *some)
                deadlines |= dict.fromkeys(some, int(deadline))
            else:
                deadlines |= await self._set(node, some, ttl_ms)
        return deadlines

    async def _set(self, node: RedisServer, keys: Sequence[str], ttl_ms: int) -> Mapping[str, int]:
        try:
            deadline = await self.cluster.ask(node, "EVAL", _SET, 0, ttl_ms, *keys)
        except (ResponseError, Unreached):  # a slot is on its way, or has gone; or the node has
            return {key: int(await self.cluster.client.eval(_SET_ONE, 1, key, str(ttl_ms))) for key in keys}
        return dict.fromkeys(keys, int(deadline))

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

    async def replicated(self) -> None:
        """Return when the replicas have all that their primaries had done before the call."""
        cluster = self.cluster
        for node in await cluster.primaries():
            offset = (await cluster.replication(node))["master_repl_offset"]
            for replica in await cluster.replicas(node):

                async def has_it(replica: RedisServer = replica, offset: int = offset) -> bool:
                    return bool((await cluster.replication(replica)).get("slave_repl_offset", 0) >= offset)

                await wait_until(has_it, "the replicas", PATIENCE)

    async def tidied(self) -> None:
        """Return when no primary has keys of the bridge but those of its own ledger, and nothing waits to be placed."""
        found = dict[RedisServer, list[str]]()

        async def is_tidied() -> bool:
            found.clear()
            for node in await self.cluster.primaries():
                number = await self.cluster.number(node)
                own = re.compile(rf"\{{expiry-bridge:0:(?:{number}\}}:(?!moved|mark)|0\}}:members$)")
                if strange := [key for key in await self.own(node, "*") if not own.match(key)]:
                    found[node] = strange
            return not found

        await wait_until(is_tidied, lambda: f"{found}\n{self.bridges[-1].log()}", PATIENCE)

    async def expire_lease(self) -> None:
        """See `Scene`: all of them."""
        for node in await self.cluster.primaries():
            for lease in await self.own(node, "lease"):
                await self.cluster.ask(node, "HSET", lease, "until", 0)

    async def waiting(self) -> int:
        """See `Scene`: in all outboxes, but those of paused nodes. While the cluster is down, 1: it is not known."""
        try:
            lengths = [
                await self.cluster.ask(node, "XLEN", outbox)
                for node in await self.cluster.primaries()
                if not node.paused
                for outbox in await self.own(node, "outbox")
            ]
        except ClusterDownError:
            return 1
        return sum(lengths)

    # What the consumers see.

    async def delivered(self, timeout: float = PATIENCE) -> list[StoredExpiration]:
        """See `Scene`. No key is in two messages, whatever their ids: none is to be set twice here."""
        stored = await super().delivered(timeout)
        times = Counter(message.key for message in stored)
        assert set(times.values()) <= {1}, [message for message in stored if times[message.key] > 1]
        return stored

    async def stored(self, least: int = 0) -> list[StoredExpiration] | None:
        """See `Scene`. What MIGRATE has carried is expected at the deadline that it was given then, or at none: it may
        expire before that is read.
        """  # noqa: D205 - one sentence
        stored = await super().stored(least)
        ids = {message.id for message in stored or ()}
        of_key = defaultdict[str, list[StoredExpiration]](list)
        for message in stored or ():
            of_key[message.key].append(message)
        for known in (self.expected, self.excused):
            for id_, (key, deadline) in [(id_, what) for id_, what in known.items() if id_ not in ids]:
                later = [message for message in of_key[key] if self._is(message, deadline)]
                if later:
                    del known[id_]
                    known[later[0].id] = key, later[0].deadline_ms or deadline
        return stored

    def _is(self, message: StoredExpiration, deadline: int) -> bool:
        """Whether a message of that key, unless somebody expects it, is of that expiration."""
        if message.id in self.expected or message.id in self.excused:
            return False
        if message.deadline_ms is None:
            return self.cluster.has_moved(message.key) and message.observed_ms > deadline
        return self._fits(message.key, deadline, message.deadline_ms)

    def _fits(self, key: str, deadline: int, found: int) -> bool:
        """Whether it is that deadline, or what MIGRATE may have made of it."""
        drift = DRIFT_MS if key in self.cluster.carried else 0
        return deadline <= found <= deadline + drift
