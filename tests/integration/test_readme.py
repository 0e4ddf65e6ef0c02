"""What the README shows is true: its consumers run."""

import asyncio
import os
import re
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from nats.js.api import ConsumerConfig
from redis import Redis

from bridge.settings import Settings
from tests.support.brokers.kafka import KafkaServer
from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.brokers.rigs import JetStreamRig, messages
from tests.support.proxy import TO_SERVER, Action, Protocol, Proxy
from tests.support.servers import ROOT, FreshBridge, NatsServer, Redis8Server, RedisServer, require, wait_until

pytestmark = pytest.mark.unmeasured

README = (ROOT / "README.md").read_text()
GROUP = "revoke-shares"
KEYS = [b"share:1", b"share:2"]
SECONDS = 45.0
"""For a consumer to start. Kafka gives up a dead member of its group after ten."""


def example(name: str) -> str:
    """The code block behind `<!-- example: name -->`."""
    found = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", README, re.DOTALL)
    assert found is not None, f"the README has no example {name!r}"
    return found[1]


class Consumer:
    """One of the README's consumers, as a process whose output is in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def output(self) -> str:
        """All that it has printed, warnings and tracebacks included."""
        return self._file.read_text()

    @property
    def revoked(self) -> list[str]:
        """What it has done: lines of its output, without warnings of its client library."""
        return [line.rstrip() for line in self.output.splitlines() if line.startswith("revoke ")]


@asynccontextmanager
async def consuming(text: str, directory: Path, **environment: str) -> AsyncIterator[Consumer]:
    """Run an example until the end of the block, where it is killed."""
    script, output = directory / "consumer.py", directory / "output"
    script.write_text(text)
    with output.open("wb") as target:
        process = await asyncio.create_subprocess_exec(
            sys.executable, script, env={**os.environ, **environment}, stdout=target, stderr=target
        )
    try:
        yield Consumer(output)
    finally:
        process.kill()
        await process.wait()


def is_offset_commit(chunk: bytes) -> bool:
    """Whether one of these requests to Kafka is an OffsetCommit. Each begins with its size and the API's number."""
    while len(chunk) >= 6:
        size, api = struct.unpack_from(">ih", chunk)
        if api == 8:
            return True
        chunk = chunk[4 + size :]
    return False


async def test_the_consumer_example_receives_an_expiration(
    redis_server: RedisServer, nats_server: NatsServer, tmp_path: Path
) -> None:
    settings = {"BRIDGE_REDIS_URL": redis_server.url, "BRIDGE_NATS_URL": nats_server.url}
    async with FreshBridge(settings) as bridge:
        await bridge.ready()
        with Redis(port=redis_server.port) as client:
            client.set("share:7f3a", "", px=20)
        async with consuming(example("consumer"), tmp_path, NATS_URL=nats_server.url) as consumer:
            await wait_until(lambda: "revoke share:7f3a " in consumer.output, lambda: consumer.output, SECONDS)


async def test_the_consumer_example_shows_the_value_and_tells_fields_from_keys(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    require(Redis8Server)
    with Redis8Server() as server:
        opted = {"BRIDGE_VALUES": "share:*", "BRIDGE_VALUES_LEAD": "30", "BRIDGE_FIELDS": "share:*"}
        async with FreshBridge({**opted, "BRIDGE_REDIS_URL": server.url, "BRIDGE_NATS_URL": nats_server.url}) as bridge:
            await bridge.ready()
            with Redis(port=server.port) as client:
                client.set("share:7f3a", "of a patient", px=5000)  # its value is read at once
                client.hset("share:h", mapping={"token": "", "kept": ""})
                client.execute_command("HPEXPIRE", "share:h", 500, "FIELDS", 1, "token")
            async with consuming(example("consumer"), tmp_path, NATS_URL=nats_server.url) as consumer:
                await wait_until(
                    lambda: "expired token of share:h " in consumer.output, lambda: consumer.output, SECONDS
                )
                await wait_until(lambda: bool(consumer.revoked), lambda: consumer.output, SECONDS)
                (line,) = consumer.revoked
                assert re.fullmatch(r"revoke share:7f3a [0-9a-f]{32} of a patient", line)


async def test_what_the_consumer_example_did_not_ack_before_it_was_killed_comes_again(tmp_path: Path) -> None:
    shares = messages(0, keys=KEYS)
    wanted = {f"revoke {share.key.decode()} {share.id}" for share in shares}
    async with JetStreamRig() as rig, rig.client() as client, Proxy(rig.server.port, Protocol.NATS) as proxy:
        await rig.published([*shares, *messages(0, keys=[b"cart:1"], first=9)])
        jetstream = client.jetstream()
        # As the example would make it, but for the 30 seconds until what is not acked comes again.
        config = ConsumerConfig(durable_name=GROUP, filter_subject="expired.0.share", ack_wait=1)
        await jetstream.add_consumer("EXPIRY", config)

        async def unacked() -> int:
            return int((await jetstream.consumer_info("EXPIRY", GROUP)).num_ack_pending or 0)

        async def all_are_acked() -> bool:
            return await unacked() == 0

        ack = proxy.break_on(TO_SERVER, rb"\APUB \$JS\.ACK\.", Action.HOLD)
        async with consuming(example("consumer"), tmp_path, NATS_URL=f"nats://127.0.0.1:{proxy.port}") as consumer:
            await ack.reached()
            await wait_until(lambda: set(consumer.revoked) == wanted, lambda: consumer.output, SECONDS)
        assert await unacked() == len(shares)

        async with consuming(example("consumer"), tmp_path, NATS_URL=rig.server.url) as consumer:
            await wait_until(lambda: set(consumer.revoked) == wanted, lambda: consumer.output, SECONDS)
            await wait_until(all_are_acked)


async def test_the_kafka_consumer_example_drops_duplicates_and_what_it_did_not_commit_comes_again(
    kafka_server: KafkaServer, tmp_path: Path
) -> None:
    rig = KafkaRig(kafka_server)
    # A topic of its own, because other tests use this Kafka, too.
    text = example("kafka consumer").replace(f'"{Settings().kafka_topic}"', f'"{rig.topic}"')
    assert rig.topic in text
    one, other = messages(0, keys=KEYS)
    wanted = [f"revoke {share.key!r} {share.id}" for share in (one, other)]
    async with rig.opened() as sink:
        for message in (one, *messages(0, keys=[b"cart:1"], first=9), one, other):
            await sink.publish([message])

    async def committed() -> int | None:
        async with rig.admin() as admin:
            offsets = await admin.list_consumer_group_offsets(GROUP)
        place = TopicPartition(rig.topic, 0)
        return offsets[place].offset if place in offsets else None

    async def all_are_committed() -> bool:
        return await committed() == 4

    async with kafka_server.proxy() as proxy:
        commit = proxy.break_on(TO_SERVER, is_offset_commit, Action.HOLD)
        async with consuming(text, tmp_path, KAFKA_SERVERS=f"127.0.0.1:{proxy.port}") as consumer:
            await commit.reached()
            assert consumer.revoked == wanted[:1]
    assert await committed() is None

    async with consuming(text, tmp_path, KAFKA_SERVERS=kafka_server.address) as consumer:
        await wait_until(all_are_committed, lambda: consumer.output, SECONDS)
        assert consumer.revoked == wanted
