"""A batch, sorted into the lanes of its partitions."""

import asyncio
from collections.abc import Sequence

from bridge.sinks.kafka.context import Context
from bridge.sinks.kafka.lanes import Lanes
from bridge.sinks.kafka.load import Load
from bridge.sinks.kafka.partitioner import murmur2, partition_of
from bridge.sinks.kafka.records import EMPTY_BYTES, Records, headers_of, size
from bridge.sinks.kafka.topics import Topics


class Loading:
    """Sorts batches for one producer."""

    def __init__(self, lanes: Lanes, topics: Topics, context: Context) -> None:
        self._lanes = lanes
        self._names = context.names
        self._turn_messages = context.limits.turn_messages
        self._topics = topics
        self._records_bytes = context.limits.records_bytes
        """The most bytes of a batch of records of several messages."""

    async def load(self, load: Load) -> None:
        """Send what is to be sent; `load` hears at once what is not. Raises KafkaError: no broker answers."""
        topic_of = self._names.of_message
        topics = [topic_of(message) for message in load.messages]
        never, later = await self._topics.ensure(set(topics))
        if never or later:
            load.rejected({index: never[topic] for index, topic in enumerate(topics) if topic in never})
            load.refused({index: later[topic] for index, topic in enumerate(topics) if topic in later})
        wanted = [(index, topic) for index, topic in enumerate(topics) if topic not in never and topic not in later]
        large = await self._sort(load, wanted)
        if large:
            await self._judge(large)

    async def _sort(self, load: Load, wanted: Sequence[tuple[int, str]]) -> list[Records]:
        """Send everything that fits into shared records; return the rest, each by itself."""
        most = self._records_bytes
        partitions, room = {}, {}
        for topic in {topic for _, topic in wanted}:
            partitions[topic] = self._topics.partitions(topic)
            room[topic] = min(self._topics.limit(topic) or most, most)
        large = []
        hashes = murmur2([load.messages[index].key for index, _ in wanted])
        for count, ((index, topic), hash_) in enumerate(zip(wanted, hashes, strict=True), 1):  # this is the hot path
            message = load.messages[index]
            headers = headers_of(message)
            bytes_ = size(message, headers)
            place = topic, partition_of(hash_, partitions[topic])
            if EMPTY_BYTES + bytes_ > room[topic]:
                records = self._lanes.new(place)
                records.add(load, index, headers, bytes_)
                large.append(records)
            else:
                self._lanes.put(place, load, index, headers, bytes_, room[topic])
            if not count % self._turn_messages:
                await asyncio.sleep(0)
        return large

    async def _judge(self, large: list[Records]) -> None:
        """Reject messages that exceed their topic's limit. If the limit is unknown, the broker decides."""
        if any(self._excess(records) for records in large):
            await self._topics.describe({records.place[0] for records in large})  # it may have been raised meanwhile
        for records in large:
            if excess := self._excess(records):
                for load, indices in records.by_load():
                    load.rejected(dict.fromkeys(indices, excess))
            else:
                self._lanes.append(records)

    def _excess(self, records: Records) -> str:
        limit, bytes_ = self._topics.limit(records.place[0]), records.builder.size()
        if limit is None or bytes_ <= limit:
            return ""
        return f"{bytes_} bytes as a Kafka record, and the topic takes {limit} (max.message.bytes)"
