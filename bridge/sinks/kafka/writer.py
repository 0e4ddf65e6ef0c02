"""One shard's transactional producer: what it begins fences every former one of the same name.

Guarantees: an id is committed once, as long as the topic keeps it. Before the first message of a topic is sent, the
topic's end is read, behind the fence: nobody else can commit any more what this shard has in its outbox. A transaction
is committed when each of its batches is acked, never aborted: after any failure, the producer is thrown away.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import KafkaError, ProducerFenced

from bridge.sinks.kafka.connect import connect, discard
from bridge.sinks.kafka.context import Context
from bridge.sinks.kafka.load import Load
from bridge.sinks.kafka.partitioner import partition_of
from bridge.sinks.kafka.records import EMPTY_BYTES, Place, Records, headers_of, size
from bridge.sinks.kafka.sequence import TOO_LARGE
from bridge.sinks.kafka.tail import Tail
from bridge.sinks.kafka.topics import Topics

TIMEOUT_MS = 10_000
"""After which the brokers end the transaction of a producer that is gone: until then, it hides what others commit."""
FEWEST_BYTES = 1024


@dataclass(slots=True)
class Fitted:
    """What brokers have shown that they do not take, whatever they say. For all sessions of a process."""

    most: dict[str, int] = field(default_factory=dict)
    """Bytes of a batch of records, by topic."""
    too_large: set[str] = field(default_factory=set)
    """Ids of messages that were refused alone."""
    fenced: bool = False
    """Whether the last session ended because another producer had fenced one of its own."""


@dataclass(slots=True)
class Known:
    """What is known of a topic's end."""

    ids: set[bytes]
    since_ms: int


class Writer:
    """Made by `open`. It must be closed in the end."""

    def __init__(self, producer: Any, topics: Topics, tail: Tail, context: Context, fitted: Fitted) -> None:  # noqa: ANN401 - the library has no types
        self._producer = producer
        self._topics = topics
        self._tail = tail
        self._context = context
        self._fitted = fitted
        self._known: dict[str, Known] = {}
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, name: str, topics: Topics, tail: Tail, context: Context, fitted: Fitted) -> "Writer":
        """With the transactional id `name`. Raises NotConnected or Refused."""
        producer = await connect(
            context.settings,
            context.clock,
            context.limits,
            transactional_id=name,
            transaction_timeout_ms=TIMEOUT_MS,
        )
        return cls(producer, topics, tail, context, fitted)

    async def close(self) -> None:
        """Within a bounded time. What is not committed never will be."""
        await discard(self._producer, self._context.clock, self._context.limits)
        waiter = getattr(getattr(self._producer, "_txn_manager", None), "_transaction_waiter", None)
        if waiter is not None and waiter.done() and not waiter.cancelled():
            waiter.exception()  # nobody waits for it, and asyncio would say so

    async def write(self, load: Load, wanted: Sequence[tuple[int, str]], claimed_ms: Sequence[int]) -> None:
        """Commit what is not in its topic yet; each of `wanted`, indices with topics, gets its receipt.

        One after the other. Raises KafkaError: nothing is known of what has none.
        """
        async with self._turn:
            await self._write(load, wanted, claimed_ms)

    async def _write(self, load: Load, wanted: Sequence[tuple[int, str]], claimed_ms: Sequence[int]) -> None:
        new = []
        for topic in dict.fromkeys(topic for _, topic in wanted):
            mine = [index for index, of in wanted if of == topic]
            known = await self._end_of(topic, min(claimed_ms[index] for index in mine))
            there = [index for index in mine if load.messages[index].id.encode() in known.ids]
            load.acked(there)
            if there:
                gone = set(there)
                mine = [index for index in mine if index not in gone]
            new += [(index, topic) for index in mine]
        batches = self._sorted(load, new, claimed_ms)
        if batches:
            await self._commit(batches)
            for records in batches:
                load.acked(records.indices)

    async def _end_of(self, topic: str, since_ms: int) -> Known:
        """What is committed since. Read once, unless something older comes."""
        known = self._known.get(topic)
        if known is None or since_ms < known.since_ms:
            ids = await self._tail.ids(topic, self._topics.partitions(topic), since_ms)
            known = self._known[topic] = Known(ids, since_ms)
        return known

    def _sorted(self, load: Load, wanted: Sequence[tuple[int, str]], claimed_ms: Sequence[int]) -> list[Records]:
        """Batches of records, in the messages' order for each partition. What is too large is rejected."""
        last: dict[Place, Records] = {}
        found: list[Records] = []
        most = self._context.limits.records_bytes
        for index, topic in wanted:
            message = load.messages[index]
            headers = headers_of(message)
            bytes_ = size(message, headers)
            limit = self._topics.limit(topic)
            if message.id in self._fitted.too_large or (limit is not None and EMPTY_BYTES + bytes_ > limit):
                takes = f", and the topic takes {limit} (max.message.bytes)" if limit else ""
                load.rejected({index: f"{bytes_} bytes as a Kafka record{takes}"})
                continue
            place = topic, partition_of(message.key, self._topics.partitions(topic))
            room = min(self._fitted.most.get(topic, most), limit or most, most)
            records = last.get(place)
            if records is None or records.bytes + bytes_ > room:
                records = last[place] = Records(place, self._producer.create_batch())
                found.append(records)
            records.add(load, index, headers, bytes_, claimed_ms[index])
        return found

    async def _commit(self, batches: Sequence[Records]) -> None:
        producer, seconds = self._producer, self._context.limits.stall
        try:
            async with self._context.clock.timeout(seconds):
                await producer.begin_transaction()
                acks = [
                    (records, await producer.send_batch(records.builder, records.place[0], partition=records.place[1]))
                    for records in batches
                ]
                answers = await asyncio.gather(*(ack for _, ack in acks), return_exceptions=True)
                for (records, _), answer in zip(acks, answers, strict=True):
                    if isinstance(answer, BaseException):  # the library would commit all the same
                        self._note(records, answer)
                        raise answer
                await producer.commit_transaction()
        except TimeoutError:
            raise KafkaError(f"no transaction was committed within {seconds:g} s") from None
        except AssertionError:  # what the library says once it is fenced
            raise ProducerFenced from None

    def _note(self, records: Records, error: BaseException) -> None:
        """What cannot be taken is made smaller the next time, or rejected."""
        if not isinstance(error, TOO_LARGE):
            return
        if len(records) == 1:
            self._fitted.too_large.add(records.loads[0].messages[records.indices[0]].id)
        else:
            self._fitted.most[records.place[0]] = max(records.bytes // 2, FEWEST_BYTES)
