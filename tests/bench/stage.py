"""What a measurement runs on: fresh servers, a bridge as users run it (without coverage), keys by the million.

Everything is on one machine, so `time.time()` is Redis's clock, too.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import nats
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, StorageType, StreamConfig
from redis.asyncio import Redis

from bridge.redis.protocol.own_keys import Names
from tests.bench.builds import build_to_start
from tests.support.servers import FreshBridge, NatsServer, RedisServer, wait_until

NAMES = Names("expiry-bridge", 0)
STREAM = "EXPIRY"
PREFIX = "share"
SUBJECT = f"expired.0.{PREFIX}"
VALUE = "x" * 32
KEY = f"{PREFIX}:%010d"
"""16 bytes."""

FILL_KEYS = 2_000
"""Set by one call: some milliseconds of Redis's time."""
FETCH = 500
DUPLICATE_SECONDS = 600
POLL_SECONDS = 0.01
AN_HOUR = 3_600.0
PATIENCE = 240.0
"""Seconds after which a measurement has failed."""

_FILL = """
for i = ARGV[1], ARGV[2] do
  local deadline = ARGV[5] + i * 7919 % ARGV[6]
  redis.call('SET', string.format(ARGV[3], i), ARGV[4], 'PXAT', string.format('%.0f', deadline))
end
"""


class TooLate(Exception):
    """The keys were due before all of them were recorded."""


class BareBridge(FreshBridge):
    """A bridge as users run it, of the build that is measured."""

    def __init__(self, settings: Mapping[str, str], *arguments: str) -> None:
        """See `Bridge`."""
        super().__init__(settings, *arguments)
        self._build = build_to_start()

    def command(self) -> Sequence[str]:
        """See `Process`."""
        return [str(self._build.python), "-m", "bridge", *self.arguments]

    def environment(self) -> Mapping[str, str]:
        """See `Process`. What the tests' coverage costs is no cost of the bridge."""
        passed_on = {name: value for name, value in super().environment().items() if name != "COVERAGE_PROCESS_CONFIG"}
        return {**passed_on, "PYTHONPATH": str(self._build.root)}

    async def stands_by(self) -> None:
        """Return when it says that another bridge holds the lease."""

        async def does() -> bool:
            with suppress(OSError):
                _, answer = await self.get("/readyz")
                return "standing by" in answer
            return False

        await wait_until(does, lambda: f"a standby\n{self.log()}")

    async def metric(self, name: str) -> float:
        """One value of its metrics; of a metric of shards, that of the only one."""
        _, text = await self.get("/metrics")
        return next(float(line.split()[1]) for line in text.splitlines() if line.split()[0].partition("{")[0] == name)


class MutedBridge(BareBridge):
    """One whose standard output goes nowhere."""

    def start(self) -> None:
        """See `Process`."""
        (self.directory / "stdout").symlink_to("/dev/null")
        super().start()


@dataclass(frozen=True)
class Stage:
    """Servers, and how a bridge finds them."""

    server: RedisServer
    redis: Redis
    settings: Mapping[str, str]

    def bridge(self, **settings: str) -> BareBridge:
        """Not started. `settings` without the prefix."""
        changed = {f"BRIDGE_{name.upper()}": value for name, value in settings.items()}
        kind = MutedBridge if changed.get("BRIDGE_SINK") == "stdout" else BareBridge
        return kind({**self.settings, **changed})

    async def fill(self, count: int, deadline_ms: int, *, first: int = 0, spread_ms: int = 1) -> None:
        """Set so many keys, which expire at that moment, or within a span that begins then."""
        fill = self.redis.register_script(_FILL)
        for begin in range(first, first + count, FILL_KEYS):
            end = min(begin + FILL_KEYS, first + count) - 1
            await fill(args=[begin, end, KEY, VALUE, deadline_ms, spread_ms])

    async def fill_for_long(self, count: int, *, first: int = 0) -> None:
        """Set so many keys, which expire within an hour that begins in an hour: no measurement waits for that."""
        await self.fill(count, in_seconds(AN_HOUR), first=first, spread_ms=round(AN_HOUR * 1000))

    async def touch(self, count: int) -> None:
        """Read those keys, so that Redis expires what is past its deadline."""
        for begin in range(0, count, FILL_KEYS):
            await self.redis.exists(*[KEY % number for number in range(begin, min(begin + FILL_KEYS, count))])

    async def recorded(self, count: int, before_ms: float = math.inf) -> None:
        """Return when the ledger has so many entries. Raises TooLate if the clock reaches `before_ms` first."""

        async def is_recorded() -> bool:
            if time.time() * 1000 >= before_ms:
                raise TooLate
            return int(await self.redis.zcard(NAMES.deadlines)) >= count

        await wait_until(is_recorded, f"{count} recorded keys", PATIENCE)

    async def settled(self, others: int = 0) -> float:
        """Return when the outbox is empty, and the ledger but for the others: when that was, Unix time in seconds."""

        async def is_claimed() -> bool:  # a cheap question, since it is asked so often
            return int(await self.redis.zcard(NAMES.deadlines)) <= others

        await wait_until(is_claimed, "the claim of what has expired", PATIENCE)
        async with asyncio.timeout(PATIENCE):
            while True:
                pipe = self.redis.pipeline(transaction=True)
                pipe.zcard(NAMES.deadlines)
                pipe.xlen(NAMES.outbox)
                pipe.time()
                entries, claimed, (seconds, microseconds) = await pipe.execute()
                if entries <= others and not claimed:
                    return float(seconds + microseconds / 1e6)
                await asyncio.sleep(POLL_SECONDS)


@dataclass(frozen=True)
class JetStreamStage(Stage):
    """With a NATS server."""

    nats: NatsServer

    async def stored(self, subject: str = SUBJECT) -> int:
        """Messages in the stream of all subjects that this one matches."""
        async with self._jetstream() as jetstream:
            info = await jetstream.stream_info(STREAM, subjects_filter=subject)
            return sum((info.state.subjects or {}).values())

    async def last_stored(self, subject: str = SUBJECT) -> float:
        """When the last message of that subject was stored, Unix time in seconds."""
        async with self._jetstream() as jetstream:
            message = await jetstream.get_last_msg(STREAM, subject)
            return message.time.timestamp() if message.time else math.nan

    async def make_stream(self) -> None:
        """The stream, as a bridge makes it: for those that do not."""
        config = StreamConfig(
            name=STREAM, subjects=["expired.0.*"], storage=StorageType.FILE, duplicate_window=DUPLICATE_SECONDS
        )
        async with self._jetstream() as jetstream:
            await jetstream.add_stream(config)

    async def read(self, subject: str, count: int) -> list[tuple[bytes, float]]:
        """The first `count` messages of that subject, once they are there: body, and when it was stored (Unix ms)."""
        found: list[tuple[bytes, float]] = []
        async with self._jetstream() as jetstream, asyncio.timeout(PATIENCE):
            subscription = await jetstream.pull_subscribe(
                subject, stream=STREAM, config=ConsumerConfig(ack_policy=AckPolicy.NONE)
            )
            while len(found) < count:
                with suppress(TimeoutError):
                    messages = await subscription.fetch(min(count - len(found), FETCH), timeout=1.0)
                    found += [(one.data, one.metadata.timestamp.timestamp() * 1000) for one in messages]
        return found

    @asynccontextmanager
    async def _jetstream(self) -> AsyncIterator[JetStreamContext]:
        client = await nats.connect(self.nats.url)
        try:
            yield client.jetstream()
        finally:
            await client.close()


@asynccontextmanager
async def staged(
    settings: Mapping[str, str] | None = None, *, appendonly: bool = False, kind: type[RedisServer] = RedisServer
) -> AsyncIterator[Stage]:
    """A fresh Redis; `settings` are those of bridges, beyond its address."""
    with kind(appendonly=appendonly) as server:
        redis = Redis.from_url(server.url, protocol=2)
        try:
            yield Stage(server, redis, {"BRIDGE_REDIS_URL": server.url, **(settings or {})})
        finally:
            await redis.aclose()


@asynccontextmanager
async def staged_with_nats(
    *, appendonly: bool = False, kind: type[RedisServer] = RedisServer
) -> AsyncIterator[JetStreamStage]:
    """A fresh Redis, and a fresh NATS server."""
    with NatsServer() as server:
        async with staged({"BRIDGE_NATS_URL": server.url}, appendonly=appendonly, kind=kind) as stage:
            yield JetStreamStage(stage.server, stage.redis, stage.settings, server)


async def until(moment_ms: float) -> None:
    """Sleep until that moment is past."""
    await asyncio.sleep(max(moment_ms / 1000 - time.time(), 0))


def in_seconds(seconds: float) -> int:
    """The moment in so many seconds, Unix time in ms."""
    return round((time.time() + seconds) * 1000)
