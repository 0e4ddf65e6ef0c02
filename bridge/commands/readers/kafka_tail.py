"""The end of each partition of a Kafka topic, by a consumer that is in no group."""

import asyncio
import logging
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from bridge.commands.readers.arrivals import Arrival
from bridge.commands.readers.kafka import CLOCK, LIMITS, READ_MS, arrival_of, stop
from bridge.errors import ErrorKind, NotConnected, Refused
from bridge.settings import Settings
from bridge.sinks.kafka.cluster import Cluster
from bridge.sinks.kafka.connect import admitted
from bridge.sinks.kafka.names import TopicTemplate
from bridge.sinks.kafka.tail import isolation
from bridge.sinks.kafka.topics import DENIED, UNKNOWN_TOPIC

SPARE = 3
"""From each partition, that many times the wanted number is read: some records may announce no expiration."""


class KafkaTail:
    """See `Tail`."""

    def __init__(self, settings: Settings, db: int) -> None:
        self._settings = settings
        self._topic = TopicTemplate(settings.kafka_topic, db).fixed
        self._consumer: Any = None

    async def last(self, limit: int) -> list[Arrival]:
        """See `Tail`."""
        if self._topic is None:
            raise Refused("the topic depends on the key: there is no one place to look")
        try:
            consumer = self._consumer or await self._open()
            records = await self._read(consumer, await self._places(consumer, self._topic), SPARE * limit)
        except TopicAuthorizationFailedError:
            raise self._denied() from None
        except (OSError, KafkaError) as error:
            raise NotConnected(f"Kafka does not answer: {str(error) or type(error).__name__}") from None
        found = [arrival for arrival in map(arrival_of, records) if arrival is not None]
        return sorted(found, key=lambda arrival: arrival.observed_ms, reverse=True)[:limit]

    async def close(self) -> None:
        """See `Tail`."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop(consumer)

    async def _open(self) -> Any:  # noqa: ANN401 - the library has no types
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        options = await admitted(self._settings, CLOCK, LIMITS)
        self._consumer = AIOKafkaConsumer(
            **options,
            isolation_level=isolation(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await self._consumer.start()
        return self._consumer

    async def _places(self, consumer: Any, topic: str) -> list[TopicPartition]:  # noqa: ANN401 - likewise
        cluster = Cluster(consumer._client, CLOCK, LIMITS)  # noqa: SLF001 - the producer's is public, this one is not
        code = (await cluster.find([topic]))[topic].code
        if code == DENIED:
            raise self._denied()
        if code == UNKNOWN_TOPIC:
            raise Refused(f"topic {topic} does not exist")
        await cluster.refresh([topic])
        return [TopicPartition(topic, number) for number in range(cluster.partitions(topic))]

    @staticmethod
    async def _read(consumer: Any, places: list[TopicPartition], count: int) -> list[Any]:  # noqa: ANN401 - likewise
        """The last `count` records of each place."""
        if set(places) != consumer.assignment():
            consumer.assign(places)
        first, ends = await asyncio.gather(consumer.beginning_offsets(places), consumer.end_offsets(places))
        for place in places:
            consumer.seek(place, max(ends[place] - count, first[place]))
        records: list[Any] = []
        while any([await consumer.position(place) < ends[place] for place in places]):
            for more in (await consumer.getmany(timeout_ms=READ_MS)).values():
                records += more
        return records

    def _denied(self) -> Refused:
        return Refused(
            f"the Kafka user may not read topic {self._topic}",
            "allow it to (ACL operations Read, Describe)",
            ErrorKind.DENIED,
        )
