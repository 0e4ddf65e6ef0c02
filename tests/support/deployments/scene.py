"""A Redis behind a proxy, bridges as processes, a broker, and what must arrive there.

`Scene` is what they have in common; `Deployment` is one with NATS, `KafkaDeployment` one with Kafka.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

from redis.asyncio import Redis, RedisCluster

from bridge.commands.embedded import Server
from bridge.limits import Limits
from tests.support.contract import LEASE, LEDGER, OUTBOX, id_of_deadline
from tests.support.deployments.diagnosis import diagnosis
from tests.support.deployments.stored import StoredExpiration, StoredMessage
from tests.support.deployments.telemetry import events
from tests.support.proxy import Protocol, Proxy
from tests.support.redis.commands import SET_TOGETHER
from tests.support.servers import PATIENCE, Bridge, RedisServer, wait_until

PREFIX = "share:"
KEYS = 20
DURABLE = {"appendonly": "yes", "appendfsync": "always", "notify-keyspace-events": "Egxe"}
"""What Redis has answered, it still knows after a SIGKILL; and what somebody configured for good."""

SOON_MS = 300
"""How long keys live."""
LASTING_MS = 600_000
"""How long keys live that outlive every gap."""


class Scene(ABC):
    """A Redis, a proxy before it, and bridges: what was set to expire, and what was stored of it."""

    may_copy = False
    """Whether the broker may store an event twice, under the same id."""

    def __init__(self, stack: AsyncExitStack, redis_server: RedisServer, settings: Mapping[str, str] | None) -> None:
        """`settings` are BRIDGE_* variables of every bridge, besides the addresses."""
        self.redis_server = redis_server
        self.redis_link: Proxy
        self.redis: Redis
        """A client past the proxy."""
        self.settings = settings or {}
        self.limits: Limits | None = None
        """Of bridges that are started from now on; those of all tests if none are set."""
        self.bridges: list[Bridge] = []
        self.expected: dict[str, tuple[str, int]] = {}
        """Every expiration that has to be stored: id → key, deadline."""
        self.excused: dict[str, tuple[str, int]] = {}
        """Those that need not be stored, and may."""
        self._current: dict[str, str] = {}
        """The id of each key's last deadline."""
        self._stack = stack

    async def _open(self) -> None:
        self.redis_link = await self._stack.enter_async_context(Proxy(self.redis_server.port, Protocol.RESP))
        client = Redis(port=self.redis_server.port, decode_responses=True)
        self.redis = await self._stack.enter_async_context(client)

    def _end(self) -> None:
        for bridge in self.bridges:
            assert PREFIX not in bridge.log(1_000_000), "log lines at INFO and above hold no user keys"

    @abstractmethod
    def _to_broker(self, *, direct: bool) -> dict[str, str]:
        """The BRIDGE_* variables for the broker."""

    @property
    @abstractmethod
    def broker(self) -> Server:
        """The broker's server."""

    @property
    @abstractmethod
    def broker_link(self) -> Proxy:
        """The proxy before it."""

    @abstractmethod
    async def arrived(self, least: int = 0) -> list[StoredMessage] | None:
        """What the broker holds, in its order; None if it holds surely fewer messages, or nobody can tell."""

    @property
    def user(self) -> Redis | RedisCluster:
        """A client for single keys, wherever they are."""
        return self.redis

    @property
    def servers(self) -> Sequence[RedisServer]:
        """All that may hold ledgers."""
        return [self.redis_server]

    async def stored(self, least: int = 0) -> list[StoredExpiration] | None:
        """The expirations in that."""
        arrived = await self.arrived(least)
        return None if arrived is None else [stored for message in arrived if (stored := StoredExpiration.of(message))]

    async def gaps(self) -> list[dict[str, Any]]:
        """The data of the gap records in that, each once, by the time of their opening."""
        arrived = {message.id: message.event for message in await self.arrived() or ()}
        records = [event["data"] for event in arrived.values() if event["type"] == "redis.expiry.gap"]
        return sorted(records, key=lambda record: (record["opened_ms"], record["closed_ms"]))

    def flow(self) -> None:
        """Let go what the proxies hold."""
        self.redis_link.flow()
        self.broker_link.flow()

    async def start_bridge(self, *, direct: bool = False) -> Bridge:
        """Start a bridge, `direct` past the proxies, and do not wait for it."""
        port = self.redis_server.port if direct else self.redis_link.port
        addresses = {"BRIDGE_REDIS_URL": f"redis://127.0.0.1:{port}/0", **self._to_broker(direct=direct)}
        bridge = Bridge({**addresses, **self.settings}, limits=self.limits)
        self.bridges.append(await self._stack.enter_async_context(bridge))
        return bridge

    async def ready_bridge(self, *, direct: bool = False) -> Bridge:
        """Start a bridge and wait until it is ready."""
        bridge = await self.start_bridge(direct=direct)
        await bridge.ready(PATIENCE)
        return bridge

    # What the user's services do.

    async def set(self, keys: Iterable[str], ttl_ms: int = SOON_MS, *, known: bool = True) -> list[str]:
        """Set keys that expire at one moment; returns them. Each expiration has to be stored, from now on.

        A key that is set anew before it expired has only the new deadline. The ledger knows the deadlines at once, as
        if they were recorded already: on a busy machine a bridge might be too late for that, and could not know them.
        Whether it records by itself is tried without `known`, and by `record`.
        """
        keys, now = list(keys), now_ms()
        for key, deadline in (await self._write(keys, ttl_ms, known=known)).items():
            before = self._current.get(key, "")
            if self.expected.get(before, (key, 0))[1] > now:
                del self.expected[before]
            self._current[key] = id_ = id_of_deadline(key.encode(), deadline)
            self.expected[id_] = key, deadline
        return keys

    async def _write(self, keys: Sequence[str], ttl_ms: int, *, known: bool) -> Mapping[str, int]:
        """Set them, in the ledger, too, if `known`; their deadlines."""
        deadline = await self.redis.eval(SET_TOGETHER, 1, LEDGER, str(ttl_ms), str(int(known)), *keys)
        return dict.fromkeys(keys, int(deadline))

    def unexpect(self, keys: Iterable[str]) -> dict[str, tuple[str, int]]:
        """Expect nothing of these keys any more. Returns what was expected of them."""
        removed, gone = {}, set(keys)
        for id_, (key, deadline) in list(self.expected.items()):
            if key in gone:
                removed[id_] = key, deadline
                del self.expected[id_]
        return removed

    def excuse(self, keys: Iterable[str]) -> None:
        """What is expected of these keys need not be stored, but may, once."""
        self.excused |= self.unexpect(keys)

    def expect(self, keys: Iterable[str]) -> None:
        """Expect what was excused."""
        again = set(keys)
        for id_, what in list(self.excused.items()):
            if what[0] in again:
                self.expected[id_] = self.excused.pop(id_)

    async def record(self, keys: Sequence[str]) -> None:
        """Set keys that live long; return when the bridge has recorded them. So each may get its own deadline by `set`,
        which the bridge then knows, however slow it is.
        """  # noqa: D205 - one sentence
        await self.set(keys, LASTING_MS, known=False)
        await self.recorded()

    async def recorded(self) -> None:
        """Return when the ledger holds the deadlines of all keys that are not past yet."""

        async def is_recorded() -> bool:
            now = now_ms()
            ahead = {key: deadline for key, deadline in self.expected.values() if deadline > now}
            return not ahead or await self.redis.zmscore(LEDGER, list(ahead)) == [*ahead.values()]

        await wait_until(is_recorded, "the ledger", PATIENCE)

    async def past(self, keys: Iterable[str]) -> None:
        """Return when the deadlines of these keys are past."""
        last = max((deadline for key, deadline in self.expected.values() if key in keys), default=0)
        await wait_until(lambda: now_ms() > last, "the last deadline", PATIENCE)

    async def expire_lease(self) -> None:
        """Let the next bridge begin at once. The lease of one that was killed would run out by itself in 5 s.

        It is still the dead one's fence that the next one has to outdo: only the waiting is spared.
        """
        await self.redis.hset(LEASE, "until", "0")

    async def outdone(self, bridge: Bridge) -> None:
        """Return when a bridge that was frozen knows that another one has begun since.

        Then it stands by, which is never ready; or, if the other one is slow, it may have the lease again. /readyz is
        no sign of either: it still says what was true before.
        """
        await wait_until(lambda: events(bridge, "epoch.ended"), bridge.log, PATIENCE)

    async def waiting(self) -> int:
        """How many entries are in the outbox."""
        return int(await self.redis.xlen(OUTBOX))

    async def settled(self) -> None:
        """Return when nothing is in the outbox: what is published next is what happens next."""

        async def is_settled() -> bool:
            return not await self.waiting()

        await wait_until(is_settled, "an empty outbox", PATIENCE)

    async def claimed(self, count: int) -> None:
        """Return when so many expirations wait in the outbox."""

        async def are_claimed() -> bool:
            return await self.redis.hget(LEASE, "depth") == str(count)

        await wait_until(are_claimed, f"{count} claims", PATIENCE)

    # What the consumers see.

    async def delivered(self, timeout: float = PATIENCE) -> list[StoredExpiration]:
        """Return what is stored, when that is every expected expiration, and the outbox is empty.

        Nothing else is, none is stored twice unless the broker may, and those of one key are in their order.
        """
        stored: list[StoredExpiration] = []
        last = "nothing was looked at yet"

        async def is_all_there() -> bool:
            nonlocal stored, last
            if entries := await self.waiting():
                last = f"the outbox holds {entries} entries"
                return False
            found = await self.stored(len(self.expected))
            if found is None:
                last = "the broker holds fewer messages than are expected, or does not say"
                return False
            stored, last = found, "the broker holds as many messages as are expected, or more"
            return self.expected.keys() <= {message.id for message in stored}

        try:
            await wait_until(is_all_there, lambda: f"delivery; at the last look, {last}", timeout)
        except TimeoutError as error:
            error.add_note(await self._diagnosis())
            raise
        times = Counter(message.id for message in stored)
        assert times.keys() <= self.expected.keys() | self.excused.keys(), self._difference(stored)
        assert self.may_copy or set(times.values()) <= {1}, self._difference(stored)
        deadlines: dict[str, dict[int, None]] = {}
        for message in stored:  # a copy does not change the order in which a consumer sees what it has not seen
            deadlines.setdefault(message.key, {}).setdefault(message.deadline_ms or 0)
        for key, order in deadlines.items():
            assert all(earlier < later for earlier, later in pairwise(order)), f"order of {key}: {order}"
        return stored

    async def _diagnosis(self) -> str:
        """What is missing now, and where it is."""
        try:
            async with asyncio.timeout(PATIENCE / 2):
                ids = {message.id for message in await self.stored() or ()}
        except Exception as error:  # noqa: BLE001 - it must not hide what the test waits for
            return f"the broker cannot be read: {error!r}"
        missing = [what for id_, what in self.expected.items() if id_ not in ids]
        return await diagnosis(missing, now_ms(), self.servers, self.bridges)

    def _difference(self, stored: Sequence[StoredExpiration]) -> str:
        times = Counter(message.id for message in stored)
        lost = [what for id_, what in self.expected.items() if id_ not in times]
        strange = [message for message in stored if message.id not in self.expected | self.excused]
        twice = [message for message in stored if times[message.id] > 1]
        return f"of {len(self.expected)} expirations\nlost: {lost}\nnot expected: {strange}\nstored twice: {twice}"


def now_ms() -> int:
    """Redis's clock: this machine's."""
    return time.time_ns() // 1_000_000


def keys(count: int, start: int = 0) -> list[str]:
    """Names of keys."""
    return [f"{PREFIX}{number}" for number in range(start, start + count)]
