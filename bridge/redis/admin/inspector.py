"""What operators ask of one Redis server: that of the settings, or one primary of a cluster (`nodes.py` has all).

For the commands, not for the service. What it says of the bridge's own keys is in `ledger_state.py`.

Guarantees: nothing is changed. Where the server does not say something (a narrow ACL, a managed service without
CONFIG), the answer is None.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from bridge.errors import Refused
from bridge.redis.protocol.notifications import channels
from bridge.redis.protocol.own_keys import Names
from bridge.redis.wire.conversation import conversation, replies
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.notify_flags import notification_flags
from bridge.redis.wire.primary import Primary, sentinels_of
from bridge.redis.wire.server import Server, inspect, now_ms, shards_of
from bridge.redis.wire.topology import LedgerFinder, Topology
from bridge.settings import Settings


class Inspector:
    """Looks at one server. Every method but `close` raises NotConnected or Refused."""

    def __init__(self, settings: Settings, topology: Topology | None = None, number: int = 0) -> None:
        """The one of `settings`; with the `topology` of a cluster, the primary that has the ledger of that number."""
        self.settings = settings
        self.topology = topology
        endpoint = Endpoint.of(settings)
        self.sentinels = None if topology else sentinels_of(endpoint)
        finder = LedgerFinder(topology, number) if topology else self.sentinels
        self._primary = Primary(endpoint, finder, connections=2)
        self.names = Names(settings.namespace, self.endpoint.db, number)

    @property
    def endpoint(self) -> Endpoint:
        """The server; with Sentinel, or in a cluster, the one that `locate` has found."""
        return self._primary.endpoint

    @property
    def client(self) -> Redis:
        """A client of it."""
        return self._primary.client

    @property
    def user(self) -> str:
        """The ACL user that we log in as."""
        return self.endpoint.user

    async def close(self) -> None:
        """Give the connections back."""
        await self._primary.close()

    async def locate(self) -> None:
        """With Sentinel, or in a cluster, find the primary: it may move. To be called first; again at any time."""
        await self._primary.locate()

    async def connect(self) -> None:
        """Find it, connect and log in: TIME is the least that the bridge may ask for."""
        await self.locate()
        await self.now_ms()

    async def now_ms(self) -> int:
        """Redis's clock."""
        return await now_ms(self.client, self.endpoint)

    async def clock_ahead(self) -> float:
        """Seconds by which Redis's clock is ahead of ours; wrong by half a round trip at most."""
        asked = time.time()
        redis_ms = await self.now_ms()
        return redis_ms / 1000 - (asked + time.time()) / 2

    async def server(self) -> Server | None:
        """What the server says of itself."""
        try:
            return await inspect(self.client, self.endpoint)
        except Refused:
            return None

    async def flags(self) -> str | None:
        """The value of `notify-keyspace-events`."""
        return await notification_flags(self.client, self.endpoint)

    async def info(self, section: str) -> Mapping[str, object] | None:
        """One section of INFO."""
        try:
            async with conversation(self.endpoint):
                return cast("Mapping[str, object]", await self.client.info(section))
        except Refused:
            return None

    async def cluster_nodes(self) -> str:
        """What it says of all nodes of its cluster."""
        async with conversation(self.endpoint):
            reply = await self.client.execute_command("CLUSTER", "NODES")  # type: ignore[no-untyped-call]
        return cast("bytes", reply).decode()

    async def directive(self, name: str) -> str | None:
        """The value of a directive of the configuration; None also where the server has no such directive."""
        try:
            async with conversation(self.endpoint):
                found = cast("Mapping[bytes | str, bytes | str]", await self.client.config_get(name))
        except Refused:
            return None
        value = next(iter(found.values()), None)
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    async def subscribers(self) -> int:
        """How many connections are subscribed to the channel on which Redis notifies expirations."""
        channel = next(iter(channels(self.endpoint.db)))
        async with conversation(self.endpoint):
            reply = await self.client.pubsub_numsub(channel)
        return int(reply[0][1])

    async def shards(self) -> Sequence[Names]:
        """The names of the bridge's own keys, shard by shard. A primary of a cluster has one ledger."""
        if self.topology is not None:
            return [self.names]
        count = await shards_of(self.client, self.endpoint, self.names)
        return [self.names.of(shard) for shard in range(count)]

    async def expired_keys(self) -> int:
        """How many keys of users the server has expired. A canary that is out makes it one less for the moment."""
        pipeline = self.client.pipeline(transaction=True)
        pipeline.info("stats")
        for names in await self.shards():
            pipeline.hget(names.lease, "canaries")
        async with conversation(self.endpoint):
            stats, *canaries = await pipeline.execute()
        return int(stats["expired_keys"]) - sum(int(count or 0) for count in canaries)

    async def send(self, pipeline: Pipeline) -> list[Any]:
        """Send a pipeline of its client: the replies."""
        async with conversation(self.endpoint):
            return await replies(pipeline)
