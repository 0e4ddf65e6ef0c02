"""The ledger protocol on a real server: three ways to play it, and a witness of what really expired.

* `Hand` is an epoch whose steps the test takes itself: what Redis notifies is held until the test lets it be heard.
* `Inside` is a whole bridge in the test's event loop, with a broker that keeps what it is sent. `kill()` leaves
  everything as SIGKILL would. A `tests.proxy.Proxy` in front of it holds, delays and cuts what the test wants.
* `tests.servers.Bridge` is a real process; `written` reads its standard output.
* `Witness` counts `expired` notifications by itself, past the bridge.
"""

import asyncio
import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Self, cast

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from bridge.clock import SystemClock
from bridge.cloudevents import EXPIRED_TYPE, Encoder
from bridge.contracts import Entry, Message, Settlement
from bridge.delivery.loop import Delivery
from bridge.endings import Ending
from bridge.errors import NotConnected
from bridge.expiration import Expiration, Identity
from bridge.redis.ledger.entries import read_entry
from bridge.redis.ledger.outbox import Outbox
from bridge.redis.ledger.outboxes import Outboxes
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.calls import Applied, Batch, Lease, Touch, Touched
from bridge.redis.protocol.gap import Gap
from bridge.redis.protocol.hints import Hints
from bridge.redis.protocol.notifications import channels
from bridge.redis.protocol.operations import ClosedGap, gap_closed
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.patterns import matcher
from bridge.redis.source.membership import Members
from bridge.redis.source.shard import RedisSource
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.subscription import Hint, Subscription, subscribe
from bridge.settings import Settings
from bridge.tasks import end
from bridge.telemetry.events import Telemetry
from bridge.telemetry.shard import ShardTelemetry
from tests.servers import Bridge, RedisServer, wait_until

NAMES = Names("expiry-bridge", 0)
NOTIFY = {"notify-keyspace-events": "Egxe"}
"""For a server that is played by hand: nobody configures it."""
LAZY = {"enable-debug-command": "yes", **NOTIFY}
"""For a server on which the test decides what expires: see `lazily`."""
SENTINEL = b"sentinel:"
"""Keys that only mark a place in the stream: not in what a bridge is said to have published."""
LIMIT_SECONDS = 10.0

Event = dict[str, Any]
"""A CloudEvent."""


# The user.


@asynccontextmanager
async def user_of(server: RedisServer, db: int = 0) -> AsyncIterator[Redis]:
    """The connection of a user's own service, straight to the server."""
    async with Redis(port=server.port, db=db, protocol=2) as client:
        yield client


async def lazily(user: Redis) -> None:
    """From now on a key expires only when somebody reads it. The server needs the configuration `LAZY`."""
    await user.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")  # type: ignore[no-untyped-call]


async def expired(user: Redis, *keys: bytes) -> None:
    """Return when none of the keys is there any more. Reading them is what makes Redis expire them."""

    async def are_gone() -> bool:
        return await user.exists(*keys) == 0

    await wait_until(are_gone, f"the end of {keys!r}")


async def passed(user: Redis, deadline_ms: int) -> None:
    """Return when the deadline is past on Redis's clock; reads no key."""

    async def is_past() -> bool:
        return await now_ms(user) > deadline_ms

    await wait_until(is_past, f"{deadline_ms} on Redis's clock")


async def now_ms(user: Redis) -> int:
    """Redis's clock."""
    seconds, microseconds = await user.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


async def put(user: Redis, key: bytes, ms: int) -> int:
    """Set a key that lives for `ms` milliseconds; its deadline."""
    pipeline = user.pipeline(transaction=True)
    pipeline.set(key, b"", px=ms)
    pipeline.execute_command("PEXPIRETIME", key)
    return int((await pipeline.execute())[1])


_KNOWN = """
local time = redis.call('TIME')
local deadline = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
redis.call('SET', KEYS[2], '', 'PXAT', deadline)
redis.call('ZADD', KEYS[1], deadline, KEYS[2])
for _, command in ipairs(cjson.decode(ARGV[2])) do redis.call(unpack(command)) end
return deadline
"""


async def known(user: Redis, key: bytes, ms: int, *then: Sequence[str | int]) -> int:
    """Set a key that lives for `ms` milliseconds, with a ledger that knows of it already; its deadline.

    The commands of `then` are run in the same moment: no machine is so slow that the key would expire before.
    """
    reply = await user.eval(_KNOWN, 2, NAMES.deadlines, key, ms, json.dumps(then))
    return int(reply)


async def recorded(user: Redis, *keys: bytes) -> None:
    """Return when all keys are in the ledger."""

    async def are_recorded() -> bool:
        return None not in [await entry(user, key) for key in keys]

    await wait_until(are_recorded, f"{keys!r} in the ledger")


async def entry(user: Redis, key: bytes) -> int | None:
    """The deadline that the ledger knows of the key."""
    score = await user.zscore(NAMES.deadlines, key)
    return None if score is None else int(score)


async def lapse(user: Redis) -> None:
    """Make the lease end now, as if its time had passed: whoever held it has not been heard of."""
    await user.hset(NAMES.lease, "until", 0)


class Witness:
    """An independent subscriber: how often each key was notified to have expired."""

    def __init__(self, user: Redis) -> None:
        self.counts: Counter[bytes] = Counter()
        self._user = user
        self._tokens = 0
        self._seen: set[bytes] = set()
        self._pubsub: PubSub = user.pubsub()
        self._task: asyncio.Task[None] | None = None

    @property
    def total(self) -> int:
        """How many expirations there were, those of sentinels and of canaries not included."""
        return self.counts.total()

    async def caught_up(self) -> None:
        """Return when everything is counted that was notified before the call."""
        self._tokens += 1
        token = b"%d" % self._tokens
        await self._user.publish("witness", token)
        await wait_until(lambda: token in self._seen, "the witness")

    async def __aenter__(self) -> Self:
        await self._pubsub.subscribe(b"__keyevent@0__:expired", b"witness")
        self._task = asyncio.create_task(self._count(), name="witness")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        await end([self._task])
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _count(self) -> None:
        async for message in self._pubsub.listen():
            if message["type"] != "message":
                continue
            if message["channel"] == b"witness":
                self._seen.add(message["data"])
            elif not message["data"].startswith((SENTINEL, NAMES.own_prefix)):
                self.counts[message["data"]] += 1


# An epoch, by hand.


class Hand:
    """The steps of one epoch after the other. Nothing happens that the test does not ask for.

    `async with Hand(server) as hand:` begins with an epoch; `begin()` drops what was not handled.
    """

    names = NAMES
    """Of its ledger."""

    def __init__(
        self,
        server: RedisServer,
        *,
        keys: Sequence[str] = ("*",),
        instance: str = "hand",
        endpoint: Endpoint | None = None,
    ) -> None:
        """`endpoint`: the server, where it is not what a URL names."""
        settings = Settings(redis_url=server.url, keys=list(keys))
        self._endpoint = endpoint or Endpoint.of(settings)
        self._client = self._endpoint.client()
        self._matches = matcher(settings.keys)
        self._instance = instance
        self._sync = b"hand:" + instance.encode()
        self._identity = Identity(settings.source, 0)
        self.ledger = Ledger(self._client, self._endpoint, self.names)
        self._outbox = Outbox(self.ledger, self._identity, settings.outbox_limit, Telemetry().shard())
        self._wake = asyncio.Event()
        self._held: deque[Hint] = deque()
        self._subscription: Subscription | None = None
        self._syncs = 0
        self.lease: Lease
        self.hints: Hints
        self.gap: Gap

    async def begin(self) -> None:
        """A new epoch: a new fence, a new subscription, an open gap."""
        self.end()
        lease = await self.ledger.acquire(self._instance)
        assert isinstance(lease, Lease)
        self.lease, self._seq, self._scripts = lease, 0, 0
        kinds = channels(0)
        self._held = deque()
        self.hints = self._new_hints()
        self._subscription = await subscribe(
            self._endpoint, [*kinds, self._sync], self._held, self._wake.set, SystemClock()
        )
        start_ms = await self.ledger.now_ms()
        opened_ms = lease.seen_ms or start_ms
        recovered, ambiguous = await self._client.hmget(self.names.lease, "recovered", "ambiguous")
        self.gap = Gap("a test", opened_ms, start_ms, recovered=int(recovered or 0), ambiguous=int(ambiguous or 0))

    def end(self) -> None:
        """The subscription is lost, and with it every hint that was not handled."""
        if self._subscription is not None:
            self._subscription.end("the test has ended it")

    async def hear(self) -> None:
        """Let everything be heard that Redis has notified so far."""
        self._syncs += 1
        token = (self._sync, b"%d" % self._syncs)
        await self._client.publish(*token)
        await asyncio.wait_for(self._arrived(token), LIMIT_SECONDS)
        while (hint := self._held.popleft()) != token:
            self.hints.stream.append(hint)

    def batch(self) -> Batch:
        """What was heard, as the next script to be sent."""
        self._seq += 1
        operations = self.hints.batch()
        return Batch(self.lease.fence, self._seq, self.gap.start_ms, self.hints.handled, self._mark(), operations)

    async def send(self, batch: Batch) -> Applied | None:
        """Send one script, and learn from its reply. As the bridge does, send none that would do nothing."""
        if not batch.operations:
            return None
        applied = await self.ledger.apply(batch)
        if applied is not None:
            self.hints.applied(batch.mark, applied)
            self.gap.applied(applied)
        return applied

    async def record(self, *keys: bytes) -> None:
        """Handle these keys alone, as if a scan had found them; hear nothing."""
        self.hints.found.extend(keys)
        while self.hints.found:
            await self.send(self.batch())

    async def scan(self, match: bytes = b"*") -> int:
        """Go through the keyspace, together with what was heard; how many keys were found. Hear nothing."""
        self.hints.scan(match)
        found = 0
        while self.hints.part is not None:
            applied = await self.send(self.batch())
            assert applied is not None
            found += applied.found
        return found

    def part(self, count: int) -> Batch:
        """The first `count` hints that were heard, as the next script to be sent: as if a batch had ended there."""
        stream = self.hints.stream
        later = [stream.pop() for _ in range(len(stream) - count)]
        try:
            return self.batch()
        finally:
            stream.extend(reversed(later))

    async def step(self, count: int = 1) -> None:
        """Handle the first hints that were heard, alone."""
        await self.send(self.part(count))

    async def handle(self) -> None:
        """Hear and handle, until there is nothing more."""
        while await self._handle_heard():
            self.hints.finished_round()

    async def touch(self, mode: str = "due") -> Touched:
        """Touch what is due, or walk the ledger (which must be small)."""
        mark = self._mark()
        walk = b"0" if mode == "walk" else None
        touched = await self.ledger.touch(Touch(self.lease.fence, mark, 500, self.hints.handled, walk))
        self.hints.touched(mark, touched, 500)
        return touched

    async def close_gap(self, missed: int | None = None) -> None:
        """Put the record of the open gap into the outbox, and make an end of it."""
        gap = self.gap
        self._seq += 1
        operations = gap_closed(ClosedGap("hand", gap.opened_ms, gap.start_ms, gap.cause, missed))
        await self.send(Batch(self.lease.fence, self._seq, gap.start_ms, self.hints.handled, self._mark(), operations))
        gap.close()

    async def sweep(self, mode: str = "due") -> None:
        """Touch, and handle what comes of it."""
        await self.touch(mode)
        await self.handle()

    async def claimed(self, key: bytes | None = None) -> list[Expiration]:
        """What is in the outbox (of one key), in order."""
        claims = [event for entry in await self.entries() for event in entry.events if isinstance(event, Expiration)]
        return [claim for claim in claims if key is None or claim.key == key]

    async def entries(self, after: bytes = b"0-0") -> list[Entry]:
        """What is in the outbox behind an entry."""
        found = await self.ledger.entries(after, 100_000)
        return [read_entry(self._identity, *one, self.names.shard) for one in found]

    async def settle(self, entries: Sequence[Entry]) -> int:
        """Take these out of the outbox, as if the broker had acked them; how many expirations wait there then."""
        await self._outbox.settle([Settlement(entry) for entry in entries])
        return self._outbox.depth

    def id_of(self, key: bytes, deadline_ms: int) -> str:
        """The id of an expiration with a known deadline."""
        return self._identity.of_deadline(key, deadline_ms)

    async def __aenter__(self) -> Self:
        await self.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end()
        await self._client.aclose()

    async def _handle_heard(self) -> bool:
        await self.hear()
        heard = self.hints.waiting
        while self.hints.waiting:
            await self.send(self.batch())
        return heard

    async def _arrived(self, token: Hint) -> None:
        while token not in self._held:
            self._wake.clear()
            await self._wake.wait()

    def _new_hints(self) -> Hints:
        return Hints(self.names, channels(0), self._matches)

    def _mark(self) -> bytes:
        self._scripts += 1
        return self.names.mark(self.lease.fence, self._scripts)


# A bridge in the test's event loop.


class Recorder(ShardTelemetry):
    """Remembers what the bridge says of its gaps."""

    def __init__(self, of: Telemetry) -> None:
        """`of`: that of the process."""
        super().__init__(0, 1, of.metrics, of.health, set(), SystemClock())
        self.metrics, self.health = of.metrics, of.health
        self.causes: list[str] = []
        self.endings: list[str] = []
        self.closed = 0
        self.recovered = 0
        self.ambiguous = 0
        self.canaries = 0

    def gap_opened(self, cause: str, opened_ms: int, until_ms: int) -> None:
        """See `ShardTelemetry`."""
        super().gap_opened(cause, opened_ms, until_ms)
        self.causes.append(cause)

    def gap_closed(self, recovered: int, ambiguous: int, missed: int | None) -> None:
        """See `ShardTelemetry`."""
        super().gap_closed(recovered, ambiguous, missed)
        self.closed += 1
        self.recovered += recovered
        self.ambiguous += ambiguous

    def canary_heard(self, lag: float) -> None:
        """See `ShardTelemetry`."""
        super().canary_heard(lag)
        self.canaries += 1

    def epoch_ended(self, node: str, ending: Ending, reason: str) -> None:
        """See `ShardTelemetry`."""
        super().epoch_ended(node, ending, reason)
        self.endings.append(reason)


class Broker:
    """A sink that keeps what it is sent. While `up` is cleared, it acks nothing."""

    def __init__(self) -> None:
        self.up = asyncio.Event()
        self.connected = True
        self.up.set()
        self.events: list[Event] = []
        """Of expirations."""
        self.gaps: list[Event] = []
        """Of gaps."""

    async def open(self) -> None:
        """See `Sink`."""

    async def publish(self, batch: Sequence[Message]) -> None:
        """See `Sink`."""
        await self.up.wait()
        self.events += [json.loads(message.body) for message in batch if not message.gap]
        self.gaps += [json.loads(message.body) for message in batch if message.gap]

    async def close(self) -> None:
        """See `Sink`."""


class Inside:
    """A bridge: source and delivery as tasks of the test. Its settings are arguments, by the names of the fields."""

    def __init__(self, port: int, instance: str = "inside", **settings: object) -> None:
        chosen = Settings.model_validate({"redis_url": f"redis://127.0.0.1:{port}/0", "sink": "stdout", **settings})
        clock, process = SystemClock(), Telemetry()
        self.telemetry = Recorder(process)
        self.broker = Broker()
        self._outboxes = Outboxes()
        members = Members(lambda: self._source.ledger, instance, 1, clock)
        self._source = RedisSource(chosen, instance, clock, self.telemetry, members, wake=self._outboxes.wake)
        self._outboxes.add(self._source.outbox)
        encoder, redis_ms = Encoder(chosen.source, 0, chosen.content_mode), self._source.redis_ms
        self._delivery = Delivery(self._outboxes, self.broker, encoder, redis_ms, clock, process)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def unready(self) -> dict[str, str]:
        """Why it is not ready."""
        return self.telemetry.health.reasons

    @property
    def published(self) -> list[Event]:
        """What the broker has, without what came for sentinels."""
        return [event for event in self.broker.events if key_of(event)[: len(SENTINEL)] != SENTINEL]

    async def reconciled(self, gaps: int = 1) -> None:
        """Return when it is ready, and has closed so many gaps."""

        def is_reconciled() -> bool:
            self._check()
            return self.telemetry.closed >= gaps and not self.unready

        await wait_until(is_reconciled, lambda: f"gap {gaps} to be closed; {self.telemetry.endings} {self.unready}")

    async def ended(self, epochs: int = 1) -> None:
        """Return when so many epochs have ended."""
        await wait_until(lambda: len(self.telemetry.endings) >= epochs, f"the end of {epochs} epoch(s)")

    async def told(self, count: int) -> None:
        """Return when it has published so many expirations."""

        def are_told() -> bool:
            self._check()
            return len(self.published) >= count

        await wait_until(are_told, lambda: f"{count} messages, there are {self.published}")

    async def records(self, count: int) -> list[dict[str, Any]]:
        """The data of the gap records that it has published, once there are so many."""

        def are_there() -> bool:
            self._check()
            return len(self.broker.gaps) >= count

        await wait_until(are_there, lambda: f"{count} gap records, there are {self.broker.gaps}")
        return [event["data"] for event in self.broker.gaps]

    async def quiet(self, user: Redis) -> None:
        """Return when everything is published that was notified before the call, and no recorded deadline is past."""
        await self._past_here(user)

        async def nothing_is_due() -> bool:
            return await user.zcount(NAMES.deadlines, "-inf", f"({await now_ms(user)}") == 0

        await wait_until(nothing_is_due, "the sweep")
        await self._past_here(user)

    async def stop(self) -> None:
        """As on SIGTERM: handle, deliver, release the lease."""
        source, delivery = self._tasks
        self._source.stop()
        async with asyncio.timeout(LIMIT_SECONDS):
            await source
            self._outboxes.drain()
            await delivery
            await self._source.close()

    async def kill(self) -> None:
        """As SIGKILL: nothing is handled any more, nothing is released."""
        await end(self._tasks)
        with suppress(OSError, NotConnected):
            await self._source._primary.close()
        self._check()

    def start(self) -> None:
        """Start it; `async with` does."""
        for name, work in {"source": self._source.run(), "delivery": self._delivery.run()}.items():
            self._tasks.append(asyncio.create_task(work, name=name))

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    def _check(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _past_here(self, user: Redis) -> None:
        key = b"%b%d" % (SENTINEL, await user.incr("sentinels"))
        await put(user, key, 1)
        await expired(user, key)

        def is_told() -> bool:
            self._check()
            return any(key_of(event) == key for event in reversed(self.broker.events))

        await wait_until(is_told, "a sentinel")


# What was published.


def written(bridge: Bridge) -> list[Event]:
    """The events that a bridge with the stdout sink has written, without sentinels; a last line may be torn."""
    lines = bridge.output().split("\n")[:-1]
    events = [cast("Event", json.loads(line)) for line in lines]
    expired = [event for event in events if event["type"] == EXPIRED_TYPE]
    return [event for event in expired if key_of(event)[: len(SENTINEL)] != SENTINEL]


def key_of(event: Event) -> bytes:
    """The key that expired; the tests' keys are text."""
    return str(event["data"]["key"]).encode()


def ids(events: Iterable[Event]) -> list[str]:
    """Their ids, in order."""
    return [event["id"] for event in events]


def keys(events: Iterable[Event]) -> list[bytes]:
    """Their keys, in order."""
    return [key_of(event) for event in events]


def deadlines(events: Iterable[Event]) -> list[int | None]:
    """Their deadlines, in order."""
    return [event["data"]["deadline_ms"] for event in events]
