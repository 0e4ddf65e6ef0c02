"""Topics of the benchmark's own."""

import itertools
from collections.abc import Iterator
from typing import Final, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.support.brokers.kafka import KafkaServer

PARTITIONS: Final = 6
"""As the bridge creates them."""


class KafkaTopics(Iterator[str]):
    """Names that no topic of the server has yet."""

    def __init__(self, server: KafkaServer) -> None:
        self._server = server
        self._numbers = itertools.count(1)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        return f"bench-{next(self._numbers)}"

    async def created(self) -> str:
        """A new topic."""
        name = next(self)
        admin = AIOKafkaAdminClient(bootstrap_servers=self._server.address)
        await admin.start()
        try:
            answer = await admin.create_topics([NewTopic(name, PARTITIONS, 1)])
        finally:
            await admin.close()
        if any(code for _, code, *_ in answer.topic_errors):
            raise RuntimeError(f"topic {name} was not created: {answer}")
        return name

    async def stored(self, topic: str) -> int:
        """Records in a topic."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self._server.address)
        await consumer.start()
        try:
            ends = await consumer.end_offsets([TopicPartition(topic, number) for number in range(PARTITIONS)])
        finally:
            await consumer.stop()
        return sum(ends.values())
