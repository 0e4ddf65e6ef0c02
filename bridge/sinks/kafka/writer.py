"""One shard's transactional producer: what it begins fences every former one of the same name.

Guarantees: an id is committed once, as long as the topic keeps it. Before the first message of a topic is sent, the
topic's end is read, behind the fence: nobody else can commit any more what this shard has in its outbox. A transaction
is committed when each of its batches is acked, never aborted: after any failure, the producer is thrown away.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import InvalidTimestampError, KafkaError, ProducerFenced

from bridge.sinks.kafka.connect import connect, discard
from bridge.sinks.kafka.context import Context
from bridge.sinks.kafka.load import OpenLoad, OutboxPlace
from bridge.sinks.kafka.partitioner import murmur2, partition_of
from bridge.sinks.kafka.records import EMPTY_BYTES, Place, Records, headers_of, size
from bridge.sinks.kafka.sequence import TOO_LARGE
from bridge.sinks.kafka.tail import Tail
from bridge.sinks.kafka.timestamps import Timestamps, Verdict
from bridge.sinks.kafka.topics import Topics

TIMEOUT_MS = 10_000
"""After which the brokers end the transaction of a producer that is gone: until then, it hides what others commit."""
MOST_KNOWN = 200_000
"""Ids that are remembered of a topic."""
NOWHERE: OutboxPlace = (-1, -1, -1)
CLOCKS = (
    "the topic does not take its time: set the clocks of Redis, the bridge and the brokers, or the topic's"
    " message.timestamp limits"
)


class Refitted(KafkaError):  # type: ignore[misc]  # the library has no types
    """What was refused is made in another way by the next producer: nothing of it is stored."""


class Postponed(KafkaError):  # type: ignore[misc]  # likewise
    """Nothing is stored: it is not taken now, and perhaps later. The text says why."""


@dataclass(slots=True)
class Fitted:
    """What brokers have shown that they do not take, whatever they say. For all sessions of a process."""

    most: dict[str, int] = field(default_factory=dict)
    """Bytes of a batch of records, by topic."""
    too_large: set[str] = field(default_factory=set)
    """Ids of messages that were refused alone."""
    early: dict[str, str] = field(default_factory=dict)
    """Why claims from the future are rejected, by id, until they are."""
    timestamps: Timestamps = field(default_factory=Timestamps)
    refused: str | None = None
    """The last part of a transactional id that the last session was not let have."""


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
        self._ledgers: set[int] = set()
        """Those that have sent by it. Another one than that of the claims has adopted them."""
        self._last: dict[int, OutboxPlace] = {}
        """Up to which place of a ledger's outbox everything is in its topic."""
        self.used = context.clock.monotonic()
        """When it was made, or has committed anything, in monotonic seconds."""

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

    async def write(
        self, ledger: int, load: OpenLoad, wanted: Sequence[tuple[int, str]], claimed_ms: Sequence[int]
    ) -> None:
        """Commit what is not in its topic yet; each of `wanted`, indices with topics, gets its receipt.

        `ledger`: where they are now. One call after the other. Raises KafkaError: nothing is known of what has none,
        and this is of no more use.
        """
        places, last = [load.places[index] for index, _ in wanted], self._last.get(ledger, NOWHERE)
        # What a ledger has adopted, this writer may have sent just now. What comes once more was not settled, or Redis
        # has lost that.
        if ledger not in self._ledgers or min(places) <= last:
            self._ledgers.add(ledger)
            self._known.clear()
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
            self.used = self._context.clock.monotonic()
            for records in batches:
                self._fitted.timestamps.taken(records.place[0])
                self._remember(load, records)
                load.acked(records.indices)
        self._last[ledger] = max(last, *places)

    async def _end_of(self, topic: str, since_ms: int) -> Known:
        """What is committed since. Read once, unless something older comes."""
        known = self._known.get(topic)
        if known is None or since_ms < known.since_ms:
            ids = await self._tail.ids(topic, self._topics.partitions(topic), since_ms)
            known = self._known[topic] = Known(ids, since_ms)
        return known

    def _remember(self, load: OpenLoad, records: Records) -> None:
        """For what two ledgers have while it moves from one to the other. A repeat of one ledger shows by `_last`."""
        known = self._known.get(records.place[0])
        if known is not None and len(self._ledgers) > 1:
            known.ids.update(load.messages[index].id.encode() for index in records.indices)
            if len(known.ids) > MOST_KNOWN:
                del self._known[records.place[0]]  # it is read anew, from the claims on that are sent then

    def _sorted(self, load: OpenLoad, wanted: Sequence[tuple[int, str]], claimed_ms: Sequence[int]) -> list[Records]:
        """Batches of records, in the messages' order for each partition. What is too large is rejected."""
        last: dict[Place, Records] = {}
        found: list[Records] = []
        most, now_ms, timestamps = self._context.limits.records_bytes, self._context.now_ms(), self._fitted.timestamps
        hashes = murmur2([load.messages[index].key for index, _ in wanted])
        for (index, topic), hash_ in zip(wanted, hashes, strict=True):
            message = load.messages[index]
            headers = headers_of(message)
            bytes_ = size(message, headers)
            limit = self._topics.limit(topic)
            if message.id in self._fitted.too_large or (limit is not None and EMPTY_BYTES + bytes_ > limit):
                takes = f", and the topic takes {limit} (max.message.bytes)" if limit else ""
                load.rejected({index: f"{bytes_} bytes as a Kafka record{takes}"})
                continue
            if (early := self._fitted.early.pop(message.id, None)) is not None:
                load.rejected({index: early})
                continue
            place = topic, partition_of(hash_, self._topics.partitions(topic))
            room = min(self._fitted.most.get(topic, most), limit or most, most)
            records = last.get(place)
            if records is None or records.bytes + bytes_ > room or timestamps.alone(topic):
                records = last[place] = Records(place, self._producer.create_batch())
                found.append(records)
            stamp = timestamps.of(topic, claimed_ms[index], now_ms, self._topics.oldest_ms(topic))
            records.add(load, index, headers, bytes_, stamp)
            records.stamps.append((claimed_ms[index], stamp))
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
                        if self._noted(records, answer):
                            raise Refitted from None
                        raise answer
                await producer.commit_transaction()
        except TimeoutError:
            raise KafkaError(f"no transaction was committed within {seconds:g} s") from None
        except AssertionError:  # what the library says once it is fenced
            raise ProducerFenced from None

    def _noted(self, records: Records, error: BaseException) -> bool:
        """Whether what cannot be taken is made in another way the next time, or rejected. Raises Postponed."""
        topic, id_ = records.place[0], records.loads[0].messages[records.indices[0]].id
        if isinstance(error, InvalidTimestampError):
            now_ms = self._context.now_ms()
            verdict = self._fitted.timestamps.refused(topic, records.stamps, now_ms)
            if verdict is Verdict.LATER:
                raise Postponed(CLOCKS)
            if verdict is Verdict.NEVER:
                ahead = (records.stamps[0][0] - now_ms) // 1000
                self._fitted.early[id_] = f"its claim is {ahead} s ahead of this machine's clock, and {CLOCKS}"
            return True
        if not isinstance(error, TOO_LARGE):
            return False
        if len(records) == 1:
            self._fitted.too_large.add(id_)
        else:
            self._fitted.most[topic] = records.bytes // 2
        return True
