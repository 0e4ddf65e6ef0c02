"""SIGKILL between any two side effects: nothing is lost, nothing is stored twice, whoever dies.

The moment is not left to luck: a proxy holds the frame before which, or the answer after which, somebody is killed: the
bridge (a new one is started, past the proxies; what the dead one had under way arrives late, when the new one is done),
Redis (restarted with its append-only file), or NATS (restarted with its store).

`Deployment` and what belongs to it are used by the other tests with real servers, too.
"""

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from importlib.resources import files
from itertools import pairwise, product
from typing import Any, Self

import nats
import pytest
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from redis.asyncio import Redis

from tests.integration.test_journey import LAZY, LEASE, LEDGER, OUTBOX, be_lazy, id_of_deadline
from tests.proxy import TO_CLIENT, TO_SERVER, Action, Breakpoint, Direction, Matches, Protocol, Proxy, command
from tests.servers import Bridge, NatsServer, RedisServer, ValkeyServer, require, wait_until

KINDS: tuple[type[RedisServer], ...] = (RedisServer, ValkeyServer)
STREAM = "EXPIRY"
PREFIX = "share:"
KEYS = 20
DURABLE = {"appendonly": "yes", "appendfsync": "always", "notify-keyspace-events": "Egxe"}
"""What Redis has answered, it still knows after a SIGKILL; and what somebody configured for good."""

PATIENCE = 60.0
"""Seconds until a test gives up; no measure of anything."""
SOON_MS = 300
"""How long keys live."""

_SET = """
local time = redis.call('TIME')
local deadline = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1])
for i = 3, #ARGV do
  redis.call('SET', ARGV[i], 'some value', 'PXAT', deadline)
  if ARGV[2] == '1' then redis.call('ZADD', KEYS[1], deadline, ARGV[i]) end
end
return deadline
"""


@dataclass(frozen=True)
class Stored:
    """One message of the stream."""

    id: str
    key: str
    deadline_ms: int | None
    via: str
    subject: str
    stored_ms: float
    """When JetStream stored it."""

    @classmethod
    def of(cls, message: Msg) -> "Stored | None":
        """None for what is no expiration."""
        event, headers = json.loads(message.data), message.headers or {}
        if event["type"] != "redis.key.expired":
            return None
        assert headers["Nats-Msg-Id"] == event["id"]
        data, stored_ms = event["data"], message.metadata.timestamp.timestamp() * 1000
        return cls(event["id"], data["key"], data["deadline_ms"], data["via"], message.subject, stored_ms)


@dataclass
class Deployment:
    """A Redis, a NATS server, a proxy before each, and bridges: what was set to expire, and what was stored of it."""

    redis_server: RedisServer
    nats_server: NatsServer
    redis_link: Proxy
    nats_link: Proxy
    redis: Redis
    """A client past the proxy."""
    nats_login: Mapping[str, str]
    settings: Mapping[str, str]
    """Of every bridge, besides the addresses."""
    bridges: list[Bridge] = field(default_factory=list)
    expected: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Every expiration that has to be stored: id → key, deadline."""
    excused: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Those that need not be stored, and may."""
    _current: dict[str, str] = field(default_factory=dict)
    """The id of each key's last deadline."""
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @classmethod
    @asynccontextmanager
    async def of(
        cls,
        kind: type[RedisServer],
        *,
        redis: Mapping[str, str] | None = None,
        nats_config: str = "",
        nats_login: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Self]:
        """Start the servers and the proxies, no bridge yet. `settings` are BRIDGE_* variables of all bridges."""
        require(kind)
        require(NatsServer)
        async with AsyncExitStack() as stack:
            redis_server = stack.enter_context(kind(redis))
            nats_server = stack.enter_context(NatsServer(nats_config))
            deployment = cls(
                redis_server,
                nats_server,
                await stack.enter_async_context(Proxy(redis_server.port, Protocol.RESP)),
                await stack.enter_async_context(Proxy(nats_server.port, Protocol.NATS)),
                await stack.enter_async_context(Redis(port=redis_server.port, decode_responses=True)),
                nats_login or {},
                settings or {},
                _stack=stack,
            )
            yield deployment
            for bridge in deployment.bridges:
                assert PREFIX not in bridge.log(1_000_000), "log lines at INFO and above hold no user keys"

    async def start_bridge(self, *, direct: bool = False) -> Bridge:
        """Start a bridge, `direct` past the proxies, and do not wait for it."""
        redis_port = self.redis_server.port if direct else self.redis_link.port
        nats_port = self.nats_server.port if direct else self.nats_link.port
        bridge = Bridge(
            {
                "BRIDGE_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
                "BRIDGE_NATS_URL": f"nats://127.0.0.1:{nats_port}",
                **self.settings,
            }
        )
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
        Whether it records by itself is tried without `known`.
        """
        keys, now = list(keys), now_ms()
        deadline = int(await self.redis.eval(_SET, 1, LEDGER, str(ttl_ms), str(int(known)), *keys))
        for key in keys:
            before = self._current.get(key, "")
            if self.expected.get(before, (key, 0))[1] > now:
                del self.expected[before]
            self._current[key] = id_ = id_of_deadline(key.encode(), deadline)
            self.expected[id_] = key, deadline
        return keys

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

    async def recorded(self) -> None:
        """Return when the ledger holds the deadlines of all keys that are not past yet. Some must be left."""

        async def is_recorded() -> bool:
            now = now_ms()
            ahead = {key: deadline for key, deadline in self.expected.values() if deadline > now}
            assert ahead, "all keys expired before they were recorded: is the machine so slow?"
            return await self.redis.zmscore(LEDGER, list(ahead)) == [*ahead.values()]

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

    async def claimed(self, count: int) -> None:
        """Return when so many expirations wait in the outbox."""

        async def are_claimed() -> bool:
            return await self.redis.hget(LEASE, "depth") == str(count)

        await wait_until(are_claimed, f"{count} claims", PATIENCE)

    def flow(self) -> None:
        """Let go what the proxies hold."""
        self.redis_link.flow()
        self.nats_link.flow()

    # What the consumers see.

    @asynccontextmanager
    async def jetstream(self) -> AsyncIterator[JetStreamContext]:
        """A client past the proxy."""
        client = await nats.connect(self.nats_server.url, **self.nats_login)
        try:
            yield client.jetstream()
        finally:
            await client.close()

    async def stored(self) -> list[Stored]:
        """What the stream holds of expirations, in its order."""
        messages: list[Msg] = []

        async def take(message: Msg) -> None:
            messages.append(message)

        async with self.jetstream() as jetstream:
            count = (await jetstream.stream_info(STREAM)).state.messages
            await jetstream.subscribe(">", stream=STREAM, ordered_consumer=True, cb=take)
            await wait_until(lambda: len(messages) >= count, "what the stream holds", PATIENCE)
        return [stored for message in messages if (stored := Stored.of(message))]

    async def delivered(self, timeout: float = PATIENCE) -> list[Stored]:
        """Return what is stored, when that is every expected expiration, and the outbox is empty.

        Each is stored exactly once, nothing else is, and those of one key are in their order.
        """
        stored: list[Stored] = []
        async with self.jetstream() as jetstream:

            async def is_all_there() -> bool:
                nonlocal stored
                try:
                    info = await jetstream.stream_info(STREAM)
                except NotFoundError:
                    return False
                if info.state.messages < len(self.expected) or await self.redis.xlen(OUTBOX):
                    return False
                stored = await self.stored()
                return self.expected.keys() <= {message.id for message in stored}

            try:
                await wait_until(is_all_there, "delivery", timeout)
            except TimeoutError as error:
                logs = "\n".join(bridge.log() for bridge in self.bridges)
                error.add_note(f"{self._difference(await self.stored())}\n{logs}")
                raise
        times = Counter(message.id for message in stored)
        assert times.keys() <= self.expected.keys() | self.excused.keys(), self._difference(stored)
        assert set(times.values()) <= {1}, self._difference(stored)
        deadlines: dict[str, list[int]] = {}
        for message in stored:
            deadlines.setdefault(message.key, []).append(message.deadline_ms or 0)
        for key, order in deadlines.items():
            assert all(earlier < later for earlier, later in pairwise(order)), f"order of {key}: {order}"
        return stored

    def _difference(self, stored: Sequence[Stored]) -> str:
        times = Counter(message.id for message in stored)
        lost = [what for id_, what in self.expected.items() if id_ not in times]
        strange = [message for message in stored if message.id not in self.expected | self.excused]
        twice = [message for message in stored if times[message.id] > 1]
        return f"of {len(self.expected)} expirations\nlost: {lost}\nnot expected: {strange}\nstored twice: {twice}"


async def on_both_kinds(play: Callable[[type[RedisServer]], Awaitable[None]]) -> None:
    """Play it on Redis and on Valkey, side by side: most of the time, a test with real servers waits."""

    async def told(kind: type[RedisServer]) -> None:
        try:
            await play(kind)
        except Exception as error:
            error.add_note(f"with {kind.distribution}")
            raise

    async with asyncio.TaskGroup() as side_by_side:
        for kind in KINDS:
            side_by_side.create_task(told(kind))


def now_ms() -> int:
    """Redis's clock: this machine's."""
    return time.time_ns() // 1_000_000


def keys(count: int, start: int = 0) -> list[str]:
    """Names of keys."""
    return [f"{PREFIX}{number}" for number in range(start, start + count)]


def events(bridge: Bridge, *names: str) -> list[dict[str, Any]]:
    """The lines of a bridge's log that tell of such events, oldest first."""
    lines = (json.loads(line) for line in bridge.log(1_000_000).splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] in names]


# The moments.


def script(name: str, where: Callable[[list[bytes]], bool] = lambda _: True) -> Matches:
    """Match the call of one of the ledger's scripts, by its own arguments (those behind its keys)."""
    source = files("bridge.redis").joinpath("lua", f"{name}.lua").read_bytes()
    digest = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
    return command(b"EVALSHA", lambda words: words[1] == digest and where(words[3 + int(words[2]) :]))


def operation(wanted: bytes) -> Callable[[list[bytes]], bool]:
    """Whether a batch (of `apply`) holds this operation."""

    def holds(arguments: list[bytes]) -> bool:
        at = 3
        while at < len(arguments) and arguments[at] != wanted:
            at += 5 if arguments[at] == b"r" else 2
        return at < len(arguments)

    return holds


def frame(*parts: bytes) -> Matches:
    """Match a frame that contains all of these."""
    return lambda data: all(part in data for part in parts)


CREATE = frame(b"PUB $JS.API.STREAM.CREATE")
PUBLISH = frame(b"HPUB expired.0.")
ACK = frame(b"MSG _INBOX.", b'{"stream":')


class When(Enum):
    """In which part of a bridge's life a moment comes."""

    CONNECTING = auto()
    """It looks for the stream, for the first time of all."""
    RECOVERING = auto()
    """A dead bridge has left a full outbox; other keys are overdue, and half of them gone without anybody's notice."""
    RECORDING = auto()
    """Keys are being set."""
    RUNNING = auto()
    """Keys expire."""


@dataclass(frozen=True)
class Moment:
    """Told by a frame: it is held, or, with HOLD_REPLY, the answer to it is."""

    when: When
    matches: Matches
    action: Action = Action.HOLD
    on_nats: bool = False
    direction: Direction = TO_SERVER
    number: int = 1
    """Which of the frames that match."""
    overdue: bool = False
    """Whether it comes only when a key is past its deadline."""

    def arm(self, deployment: Deployment) -> Breakpoint:
        """Wait for it from now on."""
        seen = 0

        def matches(data: bytes) -> bool:
            nonlocal seen
            due = not self.overdue or any(deadline < now_ms() for _, deadline in deployment.expected.values())
            seen += due and self.matches(data)
            return seen >= self.number

        link = deployment.nats_link if self.on_nats else deployment.redis_link
        return link.break_on(self.direction, matches, self.action)


def around(
    name: str, when: When, matches: Matches, *, on_nats: bool = False, overdue: bool = False
) -> dict[str, Moment]:
    """The moments before the server sees it, and before the bridge sees the answer."""
    before = Moment(when, matches, on_nats=on_nats, overdue=overdue)
    return {
        f"before it {name}": before,
        f"before it knows that it {name}": replace(before, action=Action.HOLD_REPLY),
    }


MOMENTS = {
    **around("creates the stream", When.CONNECTING, CREATE, on_nats=True),
    **around("takes the lease", When.RECOVERING, script("acquire")),
    **around("subscribes", When.RECOVERING, command(b"SUBSCRIBE")),
    **around("reads the outbox", When.RECOVERING, command(b"XRANGE")),
    **around("walks the ledger", When.RECOVERING, script("touch")),
    **around("claims what is gone", When.RECOVERING, script("apply", operation(b"r"))),
    **around("records", When.RECORDING, script("apply", operation(b"p"))),
    **around("touches", When.RUNNING, script("touch"), overdue=True),
    "before it is notified": Moment(When.RUNNING, frame(b"__:expired", PREFIX.encode()), direction=TO_CLIENT),
    **around("claims", When.RUNNING, script("apply", operation(b"x"))),
    "before it publishes": Moment(When.RUNNING, PUBLISH, on_nats=True),
    "before it publishes the rest": Moment(When.RUNNING, PUBLISH, on_nats=True, number=KEYS // 2),
    "before the first ack": Moment(When.RUNNING, ACK, on_nats=True, direction=TO_CLIENT),
    "before the other acks": Moment(When.RUNNING, ACK, on_nats=True, direction=TO_CLIENT, number=KEYS // 2),
    **around("settles", When.RUNNING, script("settle")),
}


# The tests.


def victims(moment: Moment) -> Iterator[tuple[type[RedisServer], str]]:
    """Who is killed then, on which kind of Redis. NATS only where it matters, and there Redis does not."""
    yield from product(KINDS, ("bridge", "redis"))
    if moment.on_nats or moment.matches is MOMENTS["before it settles"].matches:
        yield ValkeyServer, "nats"


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
async def test_whoever_is_killed_at_that_moment_each_expiration_is_stored_once(moment: Moment) -> None:
    async with asyncio.TaskGroup() as side_by_side:
        for kind, victim in victims(moment):
            side_by_side.create_task(killed(kind, victim, moment), name=f"{victim} killed, with {kind.distribution}")


async def killed(kind: type[RedisServer], victim: str, moment: Moment) -> None:
    """Bring a bridge to the moment, kill the victim, look at what is stored."""
    try:
        async with Deployment.of(kind, redis={**DURABLE, **LAZY}) as deployment:
            await be_lazy(deployment.redis)  # so that keys expire only when the bridge touches them
            bridge, met = await brought_to(moment, deployment)
            await met.reached(PATIENCE)
            bridge = await kill(victim, deployment, bridge)
            if moment.when is When.RECORDING:
                await bridge.ready(PATIENCE)
                await deployment.recorded()
                deployment.expected.clear()  # they live too long to wait for them
                await deployment.set(keys(KEYS))
            await deployment.delivered()
            await bridge.ready(PATIENCE)
            if victim == "bridge":
                # What the dead one had sent arrives now.
                deployment.flow()
                links = deployment.redis_link, deployment.nats_link
                await wait_until(lambda: not any(link.connections for link in links), "the end of the dead connections")
                await deployment.delivered()
    except Exception as error:
        error.add_note(f"{victim} was killed, with {kind.distribution}")
        raise


async def brought_to(moment: Moment, deployment: Deployment) -> tuple[Bridge, Breakpoint]:
    """A bridge that is on its way to the moment."""
    first, second = keys(KEYS), ["share:0", *keys(KEYS, start=KEYS)]
    for path in files("bridge.redis").joinpath("lua").iterdir():
        await deployment.redis.script_load(path.read_text())  # as if run before: the first call is no rehearsal
    match moment.when:
        case When.CONNECTING:
            met = moment.arm(deployment)
            bridge = await deployment.start_bridge()
            await deployment.set(first)
        case When.RECOVERING:
            dead = await deployment.ready_bridge()
            deployment.nats_link.break_on(TO_SERVER, PUBLISH, Action.HOLD)
            await deployment.set(first)
            await deployment.claimed(KEYS)
            dead.kill()
            deployment.nats_link.cut()
            await deployment.expire_lease()
            await deployment.set(second)
            await deployment.past(second)
            assert not await deployment.redis.exists(*second[::2])  # gone now, and nobody has heard of it
            met = moment.arm(deployment)
            bridge = await deployment.start_bridge()
        case When.RECORDING:
            bridge = await deployment.ready_bridge()
            met = moment.arm(deployment)
            await deployment.set(first, 600_000, known=False)
        case When.RUNNING:
            bridge = await deployment.ready_bridge()
            met = moment.arm(deployment)
            await deployment.set(first)
            await deployment.set(second[1:], SOON_MS + 200)
    return bridge, met


async def kill(victim: str, deployment: Deployment, bridge: Bridge) -> Bridge:
    """Kill the victim. Returns the bridge that has to deliver now."""
    match victim:
        case "bridge":
            bridge.kill()
            await deployment.expire_lease()
            return await deployment.start_bridge(direct=True)
        case "redis":
            deployment.redis_server.kill()
            deployment.redis_link.cut()  # a frame that is held dies with its connection
            deployment.redis_server.start()
        case _:
            deployment.nats_server.kill()
            deployment.nats_link.cut()
            deployment.nats_server.start()
    deployment.flow()
    return bridge
