"""Apache Kafka as the demo's broker."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from bridge.commands.demo.broker import Broker
from bridge.commands.demo.consumer import Consumer, StoredMessage
from bridge.commands.demo.errors import DemoError
from bridge.commands.embedded import EmbeddedKafka
from bridge.settings import Settings, SinkKind
from bridge.tasks import end

ID_HEADER = "ce_id"


class KafkaBroker(Broker):
    """A Kafka of one node."""

    name = "Kafka"
    kind = "Kafka"
    store = "topic"
    id_header = ID_HEADER
    copies = "a consumer"
    seconds = 25

    def __init__(self) -> None:
        # The time at which a message was stored, which the lag is measured to. By default it is the producer's time.
        self.server: EmbeddedKafka = EmbeddedKafka({"log.message.timestamp.type": "LogAppendTime"})

    def settings(self) -> Mapping[str, str]:
        """See `Broker`."""
        return {"BRIDGE_SINK": SinkKind.KAFKA, "BRIDGE_KAFKA_BOOTSTRAP_SERVERS": self.server.address}

    def consumer(self, show: Callable[[StoredMessage], None]) -> Consumer:
        """See `Broker`."""
        return KafkaConsumer(self.server.address, Settings().kafka_topic, show)


class KafkaConsumer(Consumer):
    """Reads all partitions of the topic, which must exist, with a consumer that is in no group."""

    def __init__(self, address: str, topic: str, show: Callable[[StoredMessage], None]) -> None:
        """`address` is where the broker is."""
        super().__init__(show)
        self._address = address
        self._topic = topic
        self._consumer: Any

    async def open(self) -> None:
        """See `Consumer`."""
        # It complains of a broker that freezes, which is the story's to tell.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        self._consumer = AIOKafkaConsumer(
            self._topic, bootstrap_servers=self._address, auto_offset_reset="earliest", enable_auto_commit=False
        )
        self._opened.push_async_callback(self._consumer.stop)
        try:
            await self._consumer.start()
        except KafkaError as error:
            raise DemoError(f"Kafka cannot be read: {type(error).__name__}") from None
        reading = asyncio.create_task(self._read_on(), name="demo-consumer")
        reading.add_done_callback(self._on_ended)
        self._opened.push_async_callback(end, [reading])

    async def stored(self) -> int:
        """See `Consumer`."""
        ends: Mapping[object, int] = await self._consumer.end_offsets(self._consumer.assignment())
        return sum(ends.values())

    async def _read_on(self) -> None:
        async for record in self._consumer:
            self.arrived(
                dict(record.headers).get(ID_HEADER, b"").decode(),
                f"in partition {record.partition} of topic {record.topic}",
                record.value,
                record.timestamp / 1000,
            )

    def _on_ended(self, reading: asyncio.Task[None]) -> None:
        error = None if reading.cancelled() else reading.exception()
        if error is not None:
            self.failed(error)
