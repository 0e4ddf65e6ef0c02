"""A batch, sorted into the lanes of its partitions."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge.contracts import Message
from bridge.sinks.kafka.context import Context
from bridge.sinks.kafka.lanes import Lanes
from bridge.sinks.kafka.outcomes import Outcomes
from bridge.sinks.kafka.partitioner import partition_of
from bridge.sinks.kafka.records import EMPTY_BYTES, Records, headers_of, size
from bridge.sinks.kafka.topics import Topics


@dataclass(slots=True)
class Load:
    """Where the messages of one batch are."""

    placed: list[tuple[int, Records]] = field(default_factory=list)
    """By index: what is on its way."""
    rejected: dict[int, str] = field(default_factory=dict)
    """By index: why it never will be."""
    refused: dict[int, str] = field(default_factory=dict)
    """By index: why it is not now."""

    async def stored(self) -> None:
        """Return when all that is on its way is stored; never, if it is not to be learned whether it is."""
        waiting = {records.stored for _, records in self.placed if not records.stored.done()}
        if waiting:
            await asyncio.wait(waiting)


class Loading:
    """Sorts batches for one producer."""

    def __init__(self, lanes: Lanes, topics: Topics, outcomes: Outcomes, context: Context) -> None:
        self._lanes = lanes
        self._names = context.names
        self._turn_messages = context.limits.turn_messages
        self._topics = topics
        self._outcomes = outcomes

    async def load(self, batch: Sequence[Message], load: Load) -> None:
        """Send what is to be sent; `load` says what became of each message, also after an error.

        Raises KafkaError: no broker answers.
        """
        indices, rejected = self._outcomes.still_open(batch)
        load.rejected |= rejected
        topic_of = self._names.of_message
        topics = [topic_of(batch[index]) for index in indices]
        never, later = await self._topics.ensure(set(topics))
        wanted = []
        for index, topic in zip(indices, topics, strict=True):
            if topic in never:
                load.rejected[index] = never[topic]
            elif topic in later:
                load.refused[index] = later[topic]
            else:
                wanted.append((index, topic))
        large = await self._sort(batch, wanted, load)
        if large:
            await self._judge(large, load)

    async def _sort(
        self, batch: Sequence[Message], wanted: Sequence[tuple[int, str]], load: Load
    ) -> list[tuple[int, Records]]:
        """Send all but what is too large for company, which is returned."""
        most = self._outcomes.records_bytes
        partitions, room = {}, {}
        for topic in {topic for _, topic in wanted}:
            partitions[topic] = self._topics.partitions(topic)
            room[topic] = min(self._topics.limit(topic) or most, most)
        large = []
        for count, (index, topic) in enumerate(wanted, 1):  # this is the hot path
            message = batch[index]
            headers = headers_of(message)
            bytes_ = size(message, headers)
            place = topic, partition_of(message.key, partitions[topic])
            if EMPTY_BYTES + bytes_ > room[topic]:
                records = self._lanes.new(place)
                records.add(message, headers, bytes_)
                large.append((index, records))
            else:
                load.placed.append((index, self._lanes.put(place, message, headers, bytes_, room[topic])))
            if not count % self._turn_messages:
                await asyncio.sleep(0)
        return large

    async def _judge(self, large: list[tuple[int, Records]], load: Load) -> None:
        """Reject what is more than its topic takes. Where we are not told the limit, the broker shall judge."""
        if any(self._excess(records) for _, records in large):
            await self._topics.describe({records.place[0] for _, records in large})  # it may have been raised meanwhile
        for index, records in large:
            excess = self._excess(records)
            if excess:
                load.rejected[index] = excess
            else:
                load.placed.append((index, records))
                self._lanes.append(records)

    def _excess(self, records: Records) -> str:
        limit, bytes_ = self._topics.limit(records.place[0]), records.builder.size()
        if limit is None or bytes_ <= limit:
            return ""
        return f"{bytes_} bytes as a Kafka record, and the topic takes {limit} (max.message.bytes)"
