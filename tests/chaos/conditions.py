"""What lasts for a while: a broker that refuses, a role that changes, a clock, a disk, an import, silence.

Other than faults (`faults.py`), they change what Redis's clock says, or what is stored where, so that the book of
`test_chaos.py` could not tell what has to be announced. So each has a scene of its own, whose keys are set once and
known to the ledger at once: each of them has to be announced, once.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nats.js.api import DiscardPolicy, StreamConfig
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tests.chaos.servers import ClockedValkey, Stepped, set_clock, small_disk
from tests.support.brokers.kafka import KafkaServer
from tests.support.contract import STREAM
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.kafka import KafkaDeployment
from tests.support.deployments.scene import Scene
from tests.support.kinds import KINDS
from tests.support.proxy import TO_CLIENT
from tests.support.redis.commands import run
from tests.support.servers import PATIENCE, ValkeyServer, start, wait_until

BY_KEY = {"BRIDGE_NATS_SUBJECT": "expired.{db}.{key}", "BRIDGE_NATS_PROVISION": "false"}
FULL = 20
"""Messages that a subject holds at most. All gaps have one subject."""
SUBJECTS = 10
"""That are full."""


@dataclass
class Ground:
    """A scene, and what is done to it, with its judgement."""

    scene: Scene
    strike: Callable[[], AbstractAsyncContextManager[None]]
    """Once: it begins when it is entered, and is over when it is left."""
    expected_errors: frozenset[str] = frozenset()
    """Events that may be logged as errors."""
    judge: Callable[[int], Awaitable[None]] | None = None
    """More than that all is announced; of so many strikes."""
    still: asyncio.Lock = field(default_factory=asyncio.Lock)
    """The writer stands still while somebody else has it."""


Kafka = Callable[[], KafkaServer]
Condition = Callable[[random.Random, Kafka], AbstractAsyncContextManager[Ground]]


# Brokers.


@asynccontextmanager
async def subject_that_refuses(chance: random.Random, _: Kafka) -> AsyncIterator[Ground]:
    """Some subjects are full. What has others is stored meanwhile."""
    async with Deployment.of(chance.choice(KINDS), settings=BY_KEY) as scene, scene.jetstream() as jetstream:
        await jetstream.add_stream(
            StreamConfig(
                STREAM,
                subjects=["expired.>"],
                max_msgs_per_subject=FULL,
                discard=DiscardPolicy.NEW,
                discard_new_per_subject=True,
            )
        )

        @asynccontextmanager
        async def strike() -> AsyncIterator[None]:
            blocked = [f"share:full:{number}" for number in range(len(scene.expected), len(scene.expected) + SUBJECTS)]
            subjects = [f"expired.0.{key.replace(':', '.')}" for key in blocked]
            for number, subject in enumerate(subjects * FULL):
                blocker = json.dumps({"type": "blocker", "data": {}}).encode()
                await jetstream.publish(subject, blocker, headers={"Nats-Msg-Id": f"{subject} {number}"})
            await scene.set(blocked)
            await scene.past(blocked)
            (other,) = await scene.set([f"share:other:{len(scene.expected)}"])

            async def is_stored() -> bool:
                return any(message.key == other for message in await scene.stored() or ())

            await wait_until(is_stored, "a message of another subject", PATIENCE)
            yield
            for subject in subjects:
                await jetstream.purge_stream(STREAM, subject=subject)

        yield Ground(scene, strike)


@asynccontextmanager
async def topic_that_refuses(chance: random.Random, kafka: Kafka) -> AsyncIterator[Ground]:
    """For want of replicas, or because records are older than it takes."""
    async with KafkaDeployment.of(chance.choice(KINDS), kafka()) as scene:

        @asynccontextmanager
        async def strike() -> AsyncIterator[None]:
            name, value, usual = chance.choice(
                [("min_insync_replicas", "2", "1"), ("message_timestamp_before_max_ms", "0", "9223372036854775807")]
            )
            await scene.rig.configure(**{name: value})
            yield
            await scene.rig.configure(**{name: usual})

        yield Ground(scene, strike, frozenset({"sink.refused"}))


@asynccontextmanager
async def late_acks(chance: random.Random, _: Kafka) -> AsyncIterator[Ground]:
    """JetStream's acks come, but later than the bridge waits for one; all else comes in time."""
    async with Deployment.of(chance.choice(KINDS)) as scene:
        link = scene.nats_link

        @asynccontextmanager
        async def strike() -> AsyncIterator[None]:
            seconds = chance.uniform(6, 12)
            link.late = lambda direction, frame: seconds * (direction is TO_CLIENT and b'"stream":' in frame)
            yield
            link.late = lambda *_: 0.0

        yield Ground(scene, strike)


# Redis.


@asynccontextmanager
async def role_that_changes(chance: random.Random, _: Kafka) -> AsyncIterator[Ground]:
    """A planned failover behind one address: no connection is cut, or those for commands are."""
    kind, config = chance.choice(KINDS), {"repl-diskless-sync-delay": "0"}
    async with AsyncExitStack() as stack:
        scene = await stack.enter_async_context(Deployment.of(kind, redis=config))
        first = scene.redis_server
        second = stack.enter_context(kind({**config, "replicaof": f"127.0.0.1 {first.port}"}))
        servers, clients = [first, second], [scene.redis]
        clients.append(await stack.enter_async_context(Redis(port=second.port, decode_responses=True)))
        still = asyncio.Lock()

        async def in_step() -> bool:
            lead, follower = [await client.info("replication") for client in clients]
            offsets = lead["master_repl_offset"], follower["master_repl_offset"]
            return follower.get("master_link_status") == "up" and offsets[0] == offsets[1]

        @asynccontextmanager
        async def strike() -> AsyncIterator[None]:
            async with still:
                await wait_until(in_step, "the replica", PATIENCE)
                await clients[0].client_pause(10_000, all=False)  # as FAILOVER does
                await wait_until(in_step, "the replica", PATIENCE)
                await run(clients[1], "REPLICAOF", "NO", "ONE")
                scene.redis_link.target = servers[1].port
                if chance.random() < 0.5:
                    await run(clients[0], "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await run(clients[0], "REPLICAOF", "127.0.0.1", servers[1].port)
                await run(clients[0], "CLIENT", "UNPAUSE")
                for pair in (servers, clients):
                    pair.reverse()
                scene.redis, scene.redis_server = clients[0], servers[0]
            yield

        await wait_until(in_step, "the replica", PATIENCE)
        yield Ground(scene, strike, frozenset({"redis.refused"}), still=still)


@asynccontextmanager
async def clock_that_steps(chance: random.Random, _: Kafka) -> AsyncIterator[Ground]:
    """Redis's clock is set ahead, or back, and later right again."""
    async with Stepped.of(ClockedValkey) as scene:

        @asynccontextmanager
        async def strike() -> AsyncIterator[None]:
            set_clock(scene.redis_server, chance.choice([-1, 1]) * chance.uniform(0.5, 4))
            yield
            set_clock(scene.redis_server, 0)

        yield Ground(scene, strike)


async def fill(disk: Path) -> Path:
    """Leave no room on a disk. What to remove to have some again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


@asynccontextmanager
async def disk_of_redis_that_fills(chance: random.Random, _: Kafka) -> AsyncIterator[Ground]:
    """Under the append-only file: no write is taken meanwhile."""
    with small_disk() as disk:
        config = {"dir": str(disk), "appendonly": "yes", "appendfsync": "everysec", "auto-aof-rewrite-percentage": "0"}
        async with Deployment.of(chance.choice(KINDS), redis=config) as scene:

            @asynccontextmanager
            async def strike() -> AsyncIterator[None]:
                ballast = await fill(disk)
                yield
                ballast.unlink()
                await wait_until(takes_writes, "writes", PATIENCE)

            async def takes_writes() -> bool:
                try:
                    return bool(await scene.redis.set("other", ""))
                except ResponseError:
                    return False

            yield Ground(scene, strike, frozenset({"redis.refused"}))


@asynccontextmanager
async def disk_of_the_broker_that_fills(chance: random.Random, _: Kafka) -> AsyncIterator[Ground]:
    """Under JetStream, which then gives up until it is started again."""
    with small_disk() as disk:
        config = f'jetstream {{ store_dir: "{disk}" }}'
        async with Deployment.of(chance.choice(KINDS), nats_config=config) as scene:

            @asynccontextmanager
            async def strike() -> AsyncIterator[None]:
                ballast = await fill(disk)
                yield
                ballast.unlink()
                scene.nats_server.kill()
                await start(scene.nats_server)

            yield Ground(scene, strike, frozenset({"sink.refused"}))


@asynccontextmanager
async def import_mode(chance: random.Random, _: Kafka) -> AsyncIterator[Ground]:
    """Valkey's: what is past its deadline is hidden, and not expired."""
    del chance
    async with Deployment.of(ValkeyServer) as scene:

        @asynccontextmanager
        async def strike() -> AsyncIterator[None]:
            await scene.redis.config_set("import-mode", "yes")
            yield
            await scene.redis.config_set("import-mode", "no")

        yield Ground(scene, strike, frozenset({"redis.refused"}))


@asynccontextmanager
async def silence(chance: random.Random, _: Kafka) -> AsyncIterator[Ground]:
    """No expiration is notified, and the bridges may not ask why: one gap each time, and not one for each attempt."""
    settings = {
        "BRIDGE_REDIS_NOTIFICATIONS": "verify",
        "BRIDGE_REDIS_USERNAME": "bridge",
        "BRIDGE_REDIS_PASSWORD": "any",
    }
    flags = {"notify-keyspace-events": "Egxe"}
    async with Deployment.of(chance.choice(KINDS), redis=flags, settings=settings) as scene:
        await run(scene.redis, "ACL", "SETUSER", "bridge", "on", "nopass", "~*", "&*", "+@all", "-config")

        @asynccontextmanager
        async def strike() -> AsyncIterator[None]:
            await scene.redis.config_set("notify-keyspace-events", "Ege")
            yield
            await scene.redis.config_set("notify-keyspace-events", "Egxe")

        async def judge(strikes: int) -> None:
            gaps = await scene.gaps()
            assert len(gaps) <= 1 + 2 * strikes, gaps  # one of the start; a bridge may take over in between

        yield Ground(scene, strike, judge=judge)


CONDITIONS: dict[str, Condition] = {
    "subject": subject_that_refuses,
    "topic": topic_that_refuses,
    "late-acks": late_acks,
    "role": role_that_changes,
    "clock": clock_that_steps,
    "redis-disk": disk_of_redis_that_fills,
    "broker-disk": disk_of_the_broker_that_fills,
    "import": import_mode,
    "silence": silence,
}
