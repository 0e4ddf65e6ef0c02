"""The consumers of `deploy/examples`, run: each revokes a share once, whatever comes twice, and looks back at a gap."""

import asyncio
import os
import socket
import sqlite3
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import cast

import pytest
from redis.asyncio import Redis

from bridge.cloudevents import Encoder
from bridge.contracts import Message
from bridge.expiration import Expiration, GapRecord, Identity, Via
from tests.support.brokers.kafka import KafkaServer
from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.brokers.redis_rig import RedisRig
from tests.support.brokers.rigs import JetStreamRig
from tests.support.deployed import DEPLOY, found
from tests.support.examples import GO, JAVA, fetched
from tests.support.servers import TOOLS, wait_until

EXAMPLES = DEPLOY / "examples"
PATH = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
SECONDS = 60.0
"""For a consumer to start: Kafka gives up a dead member of its group after ten seconds."""
T = 1_795_346_562_000
ENCODER, IDENTITY = Encoder("/redis", 0, "structured"), Identity("/redis", 0)
SHARES = {"share:1": T, "share:2": T + 1, "share:3": T + 60_000}
"""Key → when it ends. The second one's expiration is never announced."""


def expired(key: str, deadline_ms: int) -> Message:
    """A key has expired."""
    id_ = IDENTITY.of_deadline(key.encode(), deadline_ms)
    return ENCODER.encode(Expiration(id_, key.encode(), deadline_ms, deadline_ms + 2, Via.NOTIFICATION))


FIRST, THIRD = expired("share:1", T), expired("share:3", SHARES["share:3"])
GAP = ENCODER.encode(GapRecord("9" * 32, "127.0.0.1:6379", T - 500, T + 500, "start", 1, 0, 0))
OTHERS = [expired("cart:1", T), ENCODER.trial("5" * 32, T)]


class Consumer:
    """One of the examples, and the shares that it knows of."""

    def __init__(self, command: Sequence[str | Path], directory: Path, environment: Mapping[str, str]) -> None:
        self._command = command
        self._database = directory / "shares.db"
        self._output = directory / "output"
        self._environment = {**os.environ, **environment, "DATABASE": str(self._database)}
        self._process: Process | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Until the end of the block, where it is killed."""
        with self._output.open("ab") as output:
            self._process = process = await asyncio.create_subprocess_exec(
                *self._command, env=self._environment, stdout=output, stderr=output
            )
        try:
            yield
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def share(self, shares: Mapping[str, int]) -> None:
        """Shares that end at these times."""
        with closing(sqlite3.connect(self._database)) as database, database:
            database.execute("CREATE TABLE shares (key TEXT PRIMARY KEY, ends_ms INTEGER NOT NULL, revoked_by TEXT)")
            database.executemany("INSERT INTO shares VALUES (?, ?, NULL)", shares.items())

    @property
    def log(self) -> str:
        """All that it has printed, errors included."""
        return self._output.read_text() if self._output.exists() else "nothing printed"

    @property
    def revoked(self) -> list[str]:
        """What it says that it has done."""
        return [line for line in self.log.splitlines() if line.startswith("revoked ")]

    async def has(self, *revoked: str) -> None:
        """Return when it has said so. Raises TimeoutError, with its log."""

        def has_said_so() -> bool:
            assert self._process is not None
            assert self._process.returncode is None, self.log
            return self.revoked == [*revoked]

        await wait_until(has_said_so, lambda: self.log, SECONDS)

    def handled(self) -> list[str]:
        """The ids of the messages that it has handled."""
        with closing(sqlite3.connect(self._database)) as database:
            return sorted(id_ for (id_,) in database.execute("SELECT id FROM handled"))


def line(key: str, message: Message) -> str:
    """What a consumer prints when a message has made it revoke a share."""
    return f"revoked {key} by {message.id}"


def python(name: str) -> list[str | Path]:
    """How an example in Python is run."""
    return [sys.executable, EXAMPLES / "python" / f"{name}.py"]


def go() -> list[str | Path]:
    """How the one in Go is run."""
    return [fetched(GO) / "revoke-shares"]


def shell() -> list[str | Path]:
    """How the script is run, with the CLI of NATS."""
    for tool in ("nats", "jq", "sqlite3"):
        found(tool, get="Debian: apt install jq sqlite3; .ci/shipped-tools builds nats, with Go")
    return [EXAMPLES / "revoke-shares.sh"]


def java(classes: Path) -> list[str | Path]:
    """How the one in Java is run, once it is compiled."""
    compiler, path = found("javac", get="a JDK, 17 or newer"), f"{fetched(JAVA)}/*"
    source = EXAMPLES / "java" / "RevokeShares.java"
    subprocess.run([compiler, "-cp", path, "-d", classes, source], check=True)
    return [compiler.with_name("java"), "-cp", f"{path}{os.pathsep}{classes}", "RevokeShares"]


@pytest.mark.parametrize("example", ["nats_py", "faststream_nats", "go", "shell"])
async def test_a_consumer_on_jetstream_revokes_each_share_once(example: str, tmp_path: Path) -> None:
    command = {"go": go, "shell": shell}.get(example, lambda: python(example))()
    async with JetStreamRig() as rig, rig.client() as client:
        consumer = Consumer(command, tmp_path, {"NATS_URL": rig.server.url, "PATH": PATH})
        consumer.share(SHARES)
        # The copy has another message id, so that JetStream's own window lets it through.
        await rig.published([FIRST, *OTHERS])
        await client.jetstream().publish("expired.0.share", FIRST.body, headers={"Nats-Msg-Id": "copy"})

        async with consumer.running():
            await consumer.has(line("share:1", FIRST))
            await rig.published([GAP])
            await consumer.has(line("share:1", FIRST), line("share:2", GAP))
        async with consumer.running():
            await rig.published([THIRD])
            await consumer.has(line("share:1", FIRST), line("share:2", GAP), line("share:3", THIRD))
    assert consumer.handled() == sorted([FIRST.id, GAP.id, THIRD.id])


async def test_a_consumer_of_a_redis_stream_revokes_each_share_once(tmp_path: Path) -> None:
    async with RedisRig() as rig, rig.client() as client:
        consumer = Consumer(python("redis_streams"), tmp_path, {"REDIS_URL": rig.server.url})
        consumer.share(SHARES)
        async with rig.opened() as sink:
            await sink.publish([FIRST, *OTHERS])
            await client.xadd("expired", {"ce_id": FIRST.id, "key": FIRST.key, "body": FIRST.body})  # somebody's copy

            async with consumer.running():
                await consumer.has(line("share:1", FIRST))
                await sink.publish([GAP])
                await consumer.has(line("share:1", FIRST), line("share:2", GAP))
            # What a consumer was given and has not acked when it was killed, it gets first.
            await sink.publish([THIRD])
            await client.xreadgroup("revoke-shares", socket.gethostname(), {"expired": ">"})
            async with consumer.running():
                await consumer.has(line("share:1", FIRST), line("share:2", GAP), line("share:3", THIRD))
                await wait_until(lambda: acked(client))
    assert consumer.handled() == sorted([FIRST.id, GAP.id, THIRD.id])


async def acked(client: Redis) -> bool:
    pending = cast("dict[str, int]", await client.xpending("expired", "revoke-shares"))
    return pending["pending"] == 0


@pytest.mark.parametrize("example", ["aiokafka_consumer", "faststream_kafka", "java"])
async def test_a_consumer_on_kafka_revokes_each_share_once(
    example: str, kafka_server: KafkaServer, tmp_path: Path
) -> None:
    rig = KafkaRig(kafka_server)
    command = java(tmp_path) if example == "java" else python(example)
    # A group for each: Kafka refuses Java's client for as long as the group has a member, dead or alive, of aiokafka's.
    environment = {"KAFKA_SERVERS": kafka_server.address, "KAFKA_TOPIC": rig.topic, "KAFKA_GROUP": example}
    consumer = Consumer(command, tmp_path, environment)
    consumer.share(SHARES)
    async with rig.opened() as sink:
        for message in [FIRST, *OTHERS, FIRST]:
            await sink.publish([message])

        async with consumer.running():
            await consumer.has(line("share:1", FIRST))
            await sink.publish([GAP])
            await consumer.has(line("share:1", FIRST), line("share:2", GAP))
        async with consumer.running():
            await sink.publish([THIRD])
            await consumer.has(line("share:1", FIRST), line("share:2", GAP), line("share:3", THIRD))
    assert consumer.handled() == sorted([FIRST.id, GAP.id, THIRD.id])
