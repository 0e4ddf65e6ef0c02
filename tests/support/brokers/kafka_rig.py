"""Kafka for the conformance suite: a topic of its own on a server that many tests share."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, NodeNotReadyError
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest

from bridge.clock import SystemClock
from bridge.limits import KafkaLimits
from bridge.settings import Settings
from bridge.sinks.kafka import KafkaSink
from tests.support.brokers.caller import Caller
from tests.support.brokers.kafka import SESSION_SECONDS, KafkaServer
from tests.support.brokers.rigs import PATIENCE, BrokerRig, Received
from tests.support.servers import wait_until

OF_THE_TOPIC = 1
TOPIC, LITERAL, PREFIXED, ANY, ALLOW = 2, 3, 4, 1, 3
TRANSACTIONAL_ID = 5
OPERATIONS = {"read": 3, "write": 4, "create": 5, "describe": 8, "describeconfigs": 10}
_numbers = itertools.count(1)


class KafkaRig(BrokerRig):
    """One partition, so that the order of all messages can be seen, unless the settings say otherwise."""

    def __init__(self, server: KafkaServer, **settings: Any) -> None:  # noqa: ANN401 - of any field's type
        super().__init__()
        self.server = server
        self.topic = f"expired-{next(_numbers)}"
        self._was_frozen = False
        self._seen_since: float | None = None
        """Since when the broker is there without a break, in monotonic seconds."""
        self.settings = {
            "kafka_bootstrap_servers": [server.address],
            "kafka_topic": self.topic,
            "kafka_partitions": 1,
            **settings,
        }

    def sink(self, limits: KafkaLimits | None = None, **settings: Any) -> Caller:  # noqa: ANN401 - likewise
        """See `Rig`."""
        made = Settings(**{**self.settings, **settings})
        return Caller(KafkaSink(made, 0, SystemClock(), limits or KafkaLimits(), self.observed), one_shard=True)

    @contextlib.asynccontextmanager
    async def opened(self, limits: KafkaLimits | None = None, **settings: Any) -> AsyncIterator[Caller]:  # noqa: ANN401 - likewise
        """A new one, open until the end of the block."""
        sink = self.sink(limits, **settings)
        try:
            await sink.open()
            yield sink
        finally:
            await sink.close()

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """A client of the test's own."""
        client = AIOKafkaAdminClient(bootstrap_servers=self.server.address)
        await client.start()
        try:
            yield client
        finally:
            await client.close()

    async def create(
        self, topic: str | None = None, *, replicas: dict[int, list[int]] | None = None, **configs: str
    ) -> None:
        """Create a topic with one partition, or with `replicas` of each; in the names of `configs`, `_` is a dot."""
        layout: dict[str, Any] = {"num_partitions": -1, "replication_factor": -1, "replica_assignments": replicas}
        if replicas is None:
            layout = {"num_partitions": 1, "replication_factor": 1}
        async with self.admin() as admin:
            made = NewTopic(topic or self.topic, topic_configs=_dotted(configs), **layout)
            answer = await admin.create_topics([made])
        assert [code for _, code, *_ in answer.topic_errors] == [0]

    async def configure(self, **configs: str) -> None:
        """Change the topic's configuration."""
        async with self.admin() as admin:
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, self.topic, _dotted(configs))])

    async def exists(self) -> bool:
        """Whether the topic does."""
        async with self.admin() as admin:
            return self.topic in await admin.list_topics()

    async def described(self) -> tuple[int, dict[str, str]]:
        """How many partitions the topic has, and those of its configurations that are its own."""
        async with self.admin() as admin:
            (about,) = await admin.describe_topics([self.topic])
            (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, self.topic)])
        own = {name: value for name, value, _, source, *_ in answer.resources[0][4] if source == OF_THE_TOPIC}
        return len(about["partitions"]), own

    async def has_brokers(self, count: int) -> bool:
        """Whether so many brokers serve."""
        async with self.admin() as admin:
            try:
                return len((await admin.describe_cluster())["brokers"]) == count
            except NodeNotReadyError:  # one that is dead is still counted, and was asked
                return False

    async def delete(self) -> None:
        """Delete the topic; return when the broker knows: until then it acks what then goes with the topic."""
        async with self.admin() as admin:
            await admin.delete_topics([self.topic])

        async def is_gone() -> bool:
            return not await self.exists()

        await wait_until(is_gone)

    async def allow(self, user: str, operation: str, topic: str | None = None) -> None:
        """Give a right to a topic; return when it counts."""
        place = (TOPIC, topic or self.topic, LITERAL, f"User:{user}", "*", OPERATIONS[operation], ALLOW)
        async with self.admin() as admin:
            ask = admin._send_request
            answer = await ask(CreateAclsRequest(*place))
            assert [code for code, *_ in answer.creation_responses] == [0]
            await wait_until(lambda: _any_acls(ask(DescribeAclsRequest(*place))))

    async def allow_transactions(self, user: str, operation: str, id_: str) -> None:
        """Give a right to transactional ids that begin so; return when it counts."""
        place = (TRANSACTIONAL_ID, id_, PREFIXED, f"User:{user}", "*", OPERATIONS[operation], ALLOW)
        async with self.admin() as admin:
            ask = admin._send_request
            assert [code for code, *_ in (await ask(CreateAclsRequest(*place))).creation_responses] == [0]
            await wait_until(lambda: _any_acls(ask(DescribeAclsRequest(*place))))

    async def forbid(self, user: str, topic: str | None = None) -> None:
        """Take all rights away, to one topic or to all; return when they count no more."""
        place = (TOPIC, topic, ANY if topic is None else LITERAL, f"User:{user}", "*", ANY, ANY)
        async with self.admin() as admin:
            ask = admin._send_request
            answer = await ask(DeleteAclsRequest(*place))
            assert [code for code, *_ in answer.filter_responses] == [0]
            while await _any_acls(ask(DescribeAclsRequest(*place))):
                continue

    async def records(self, topic: str | None = None) -> list[Any]:
        """All that a topic holds, partition by partition."""
        name = topic or self.topic
        consumer = AIOKafkaConsumer(bootstrap_servers=self.server.address, isolation_level="read_committed")
        await consumer.start()
        try:
            async with self.admin() as admin:
                (about,) = await admin.describe_topics([name])
            places = [TopicPartition(name, partition["partition"]) for partition in about["partitions"]]
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            ends = await consumer.end_offsets(places)
            found: dict[TopicPartition, list[Any]] = {place: [] for place in places}
            async with asyncio.timeout(PATIENCE):
                while any([await consumer.position(place) < ends[place] for place in places]):
                    for place, more in (await consumer.getmany(timeout_ms=100)).items():
                        found[place] += more
        finally:
            await consumer.stop()
        return [record for place in sorted(found) for record in found[place]]

    async def stored(self) -> list[str]:
        """See `Rig`."""
        return [message.headers["ce_id"] for message in await self.received()]

    async def received(self) -> list[Received]:
        """See `BrokerRig`. Fails if a header comes twice, or is not UTF-8."""
        found = []
        for record in await self.records():
            headers = {name: value.decode() for name, value in record.headers}
            assert len(headers) == len(record.headers)
            found.append(Received(record.topic, record.key, headers, record.value))
        return found

    def freeze(self) -> None:
        """See `Rig`."""
        self._was_frozen = True
        self.server.pause()

    def thaw(self) -> None:
        """See `Rig`."""
        self.server.resume()

    async def __aexit__(self, *_: object) -> None:
        self.thaw()
        if self._was_frozen:
            await wait_until(self._has_a_broker, "Kafka's broker to have registered again")

    async def _has_a_broker(self) -> bool:
        """One that was frozen for longer than its session is none, until it has said that it lives.

        The controller may notice that after a moment only. So the broker has to be there for longer than a session.
        """
        client, now = AIOKafkaAdminClient(bootstrap_servers=self.server.address), time.monotonic()
        try:
            await client.start()
            there = bool((await client.describe_cluster())["brokers"])
        except KafkaError:
            there = False
        finally:
            await client.close()
        self._seen_since = (self._seen_since or now) if there else None
        return self._seen_since is not None and now - self._seen_since > 2 * SESSION_SECONDS


async def _any_acls(asked: Awaitable[Any]) -> bool:
    return bool((await asked).resources)


def _dotted(configs: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "."): value for name, value in configs.items()}
