"""What people want to know of a Redis server and of the bridge's own keys there. For the commands, not for the service.

One server: that of the settings, or one primary of a cluster (`nodes.py` has all of them).

Guarantees: nothing is changed, but for a key of the bridge's own in `canary`; no user key is returned, but by
`expirations`. Where the server will not tell something (a narrow ACL, a managed service without CONFIG), the answer is
None. What is read together is not one atomic moment.
"""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from bridge.clock import SystemClock
from bridge.errors import Refused
from bridge.expiration import Expiration, Identity
from bridge.redis.ledger.entries import Unreadable, read_entry
from bridge.redis.protocol.notifications import channels
from bridge.redis.protocol.own_keys import Names
from bridge.redis.wire.endpoint import Endpoint, conversation
from bridge.redis.wire.primary import Primary, sentinels_of
from bridge.redis.wire.server import Server, inspect, notification_flags, shards_of
from bridge.redis.wire.subscription import Hint, subscribe
from bridge.redis.wire.topology import Place, Topology
from bridge.settings import Settings

CANARY_MS = 100
CANARY_SECONDS = 2.0
"""How long to wait for its notification, past its deadline."""
CANARY_POLL = 0.01


@dataclass(frozen=True, slots=True)
class LeaseState:
    """The lease, held or not."""

    holder: str | None
    """None: it was released."""
    until_ms: int
    fence: int
    seen_ms: int | None
    """Up to when every notification was handled; None before the first epoch got that far."""

    def held(self, now_ms: int) -> bool:
        """Whether somebody has it."""
        return self.holder is not None and self.until_ms > now_ms


@dataclass(frozen=True, slots=True)
class State:
    """The bridge's own keys in one database. Times are Unix milliseconds on Redis's clock."""

    now_ms: int
    ledger_size: int
    next_deadline_ms: int | None
    outbox_entries: int
    outbox_expirations: int | None
    """None where the lease, which counts them, does not exist."""
    outbox_oldest_ms: int | None
    """When the oldest entry of the outbox was claimed."""
    dead_letters: int
    moved: int
    """Entries that came with keys from other nodes of a cluster, or are to follow some there."""
    leases: Sequence[LeaseState | None]
    """Of each shard. None: no bridge has run here, or its lease was lost."""

    @property
    def lease(self) -> LeaseState | None:
        """Of the first shard, which mostly is the only one."""
        return self.leases[0]


@dataclass(frozen=True, slots=True)
class Expirations:
    """A few expirations, with their keys: those ahead, and those that the broker has not acked."""

    ahead: Sequence[tuple[bytes, int]]
    """Keys with the first deadlines of the ledger, in Unix milliseconds."""
    waiting: Sequence[Expiration]
    """The last ones of the outbox, newest first."""


class Inspector:
    """Looks at one server. Every method but `close` raises NotConnected or Refused."""

    def __init__(self, settings: Settings, topology: Topology | None = None, number: int = 0) -> None:
        """The one of `settings`; with the `topology` of a cluster, the primary that has the ledger of that number."""
        self.settings = settings
        self.topology = topology
        self.sentinels = None if topology else sentinels_of(settings)
        finder = Place(topology, number) if topology else self.sentinels
        self._primary = Primary(settings, finder, connections=2)
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
        async with conversation(self.endpoint):
            seconds, microseconds = await self.client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

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
        """How many connections are subscribed to the channel on which Redis tells of expirations."""
        channel = next(iter(channels(self.endpoint.db)))
        async with conversation(self.endpoint):
            reply = await self.client.pubsub_numsub(channel)
        return int(reply[0][1])

    async def canary(self) -> float | None:
        """Set a key of the bridge's own, let it expire, and listen: seconds from its deadline to its notification.

        None: none came within CANARY_SECONDS. The key is gone afterwards.
        """
        key, heard = self.names.canary + b":%b" % uuid.uuid4().hex.encode(), asyncio.Event()
        channel = next(iter(channels(self.endpoint.db)))
        hints: deque[Hint] = deque()
        clock = SystemClock()
        session = await subscribe(self.endpoint, [channel], hints, heard.set, clock)
        try:
            async with conversation(self.endpoint):
                await self.client.set(key, "", px=CANARY_MS)
            deadline = clock.monotonic() + CANARY_MS / 1000
            async with asyncio.timeout(CANARY_MS / 1000 + CANARY_SECONDS):
                while (channel, key) not in hints:
                    heard.clear()
                    async with conversation(self.endpoint):
                        await self.client.exists(key)  # Redis expires a key that is read past its deadline
                    with suppress(TimeoutError):
                        async with asyncio.timeout(CANARY_POLL):
                            await heard.wait()
            return max(clock.monotonic() - deadline, 0.0)
        except TimeoutError:
            return None
        finally:
            session.end("it was only a try")

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

    async def state(self) -> State:
        """The bridge's own keys. Uses only commands that the bridge itself needs."""
        pipeline = self.client.pipeline(transaction=False)
        pipeline.time()
        for names in await self.shards():
            pipeline.zcard(names.deadlines)
            pipeline.zrange(names.deadlines, 0, 0, withscores=True)
            pipeline.xlen(names.outbox)
            pipeline.xrange(names.outbox, count=1)
            pipeline.xlen(names.dead)
            pipeline.zcard(names.moved)
            pipeline.hmget(names.lease, "holder", "until", "fence", "seen_ms", "depth")
        clock, *replies = await self._answers(pipeline)
        sizes, lowest, entries, oldest, dead, moved, fields = (replies[kind::7] for kind in range(7))
        leases = cast("list[list[bytes | None]]", fields)
        depths = [int(lease[4]) for lease in leases if lease[4] is not None]
        claimed = [_claimed_ms(first[0][1]) for first in oldest if first]
        return State(
            now_ms=int(clock[0]) * 1000 + int(clock[1]) // 1000,
            ledger_size=sum(sizes),
            next_deadline_ms=min((int(first[0][1]) for first in lowest if first), default=None),
            outbox_entries=sum(entries),
            outbox_expirations=sum(depths) if depths else None,
            outbox_oldest_ms=min((ms for ms in claimed if ms is not None), default=None),
            dead_letters=sum(dead),
            moved=sum(moved),
            leases=[_lease(lease) for lease in leases],
        )

    async def expirations(self, limit: int) -> Expirations:
        """Up to `limit` expirations that are next, and as many that were claimed last and wait in the outbox."""
        identity, shards = Identity(self.settings.source, self.endpoint.db), await self.shards()
        pipeline = self.client.pipeline(transaction=False)
        for names in shards:
            pipeline.zrange(names.deadlines, 0, limit - 1, withscores=True)
            pipeline.xrevrange(names.outbox, count=limit)
        replies = await self._answers(pipeline)
        ahead = sorted([(key, int(deadline)) for page in replies[::2] for key, deadline in page], key=itemgetter(1))
        waiting: list[Expiration] = []
        for names, entries in zip(shards, replies[1::2], strict=True):
            for entry_id, fields in entries:
                with suppress(Unreadable):  # the bridge puts it aside
                    events = reversed(read_entry(identity, entry_id, fields, names.shard).events)
                    waiting += [event for event in events if isinstance(event, Expiration)]
        if len(shards) > 1:
            waiting.sort(key=attrgetter("observed_ms"), reverse=True)
        return Expirations(ahead[:limit], waiting[:limit])

    async def _answers(self, pipeline: Pipeline) -> list[Any]:
        """All of them. An error is raised as Redis says it: the library would put the whole command before it."""
        async with conversation(self.endpoint):
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, ResponseError):
                    raise answer
        return answers


def _claimed_ms(fields: Mapping[bytes, bytes]) -> int | None:
    """When an entry was claimed; None for one that somebody else wrote."""
    try:
        return int(fields[b"at"])
    except (KeyError, ValueError):
        return None


def _lease(fields: list[bytes | None]) -> LeaseState | None:
    holder, until, fence, seen = fields[:4]
    if fence is None:
        return None
    return LeaseState(
        holder=holder.decode(errors="replace") if holder else None,
        until_ms=int(until or 0),
        fence=int(fence),
        seen_ms=int(seen) if seen else None,
    )
