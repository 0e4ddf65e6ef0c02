"""The writers of all shards that a session delivers: each is replaced alone when it is of no more use.

So a shard that another bridge takes over, and that comes back, costs the other shards nothing. A bridge that is fenced
looks first whether the other one has committed what it has to send itself, and fences it in turn only for what is left.

A claim is sent by the writer of the ledger where it was claimed, whichever ledger has adopted it since: so whoever
still sends it from there is fenced as well.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress

from aiokafka.errors import KafkaError, ProducerFenced

from bridge.backoff import JITTER
from bridge.sinks.kafka.context import Context
from bridge.sinks.kafka.load import OpenLoad
from bridge.sinks.kafka.tail import Tail
from bridge.sinks.kafka.topics import Topics
from bridge.sinks.kafka.writer import TIMEOUT_MS, Fitted, Postponed, Refitted, Writer

WAIT_SECONDS = 0.2, 2.0
"""For the bridge that has fenced a writer in use: it needs some tenths of a second for what is under way."""
OFTEN, OFTEN_SECONDS = 3, 60.0
"""So often within that time, no takeovers fence a writer."""

Wanted = Sequence[tuple[int, str]]
"""Indices of messages, with their topics."""


class Writers:
    """By the last parts of their transactional ids."""

    def __init__(self, name: str, topics: Topics, tail: Tail, context: Context, fitted: Fitted) -> None:
        """`name`: what all transactional ids begin with."""
        self._name = name
        self._topics = topics
        self._tail = tail
        self._context = context
        self._clock = context.clock
        self._fitted = fitted
        self._writers: dict[str, Writer] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._opening = asyncio.Lock()
        self._fenced: dict[str, list[float]] = {}
        """When, of late, in monotonic seconds."""

    async def close(self) -> None:
        """Within a bounded time."""
        await asyncio.gather(*(writer.close() for writer in self._writers.values()))

    async def open(self, name: str) -> Writer:
        """The writer of that name, which fences all former ones. Raises NotConnected or Refused."""
        async with self._opening:
            if name not in self._writers:
                id_ = f"{self._name}:{name}"
                self._writers[name] = await Writer.open(id_, self._topics, self._tail, self._context, self._fitted)
            return self._writers[name]

    async def write(
        self, name: str, ledger: int, load: OpenLoad, wanted: Wanted, claimed_ms: Sequence[int]
    ) -> str | None:
        """See `Writer.write`. Why what has no receipt then is not taken now; None if all have one.

        Raises KafkaError, NotConnected or Refused: the session must end.
        """
        async with self._turns.setdefault(name, asyncio.Lock()):
            while left := [(index, topic) for index, topic in wanted if index in load.open]:
                writer = await self.open(name)
                try:
                    await writer.write(ledger, load, left, claimed_ms)
                except ProducerFenced:
                    await self._fence(name, writer, load, left, claimed_ms)
                except Refitted:
                    await self._drop(name, writer)
                except Postponed as error:
                    await self._drop(name, writer)
                    return str(error)
        return None

    async def _drop(self, name: str, writer: Writer) -> None:
        await writer.close()
        del self._writers[name]

    async def _fence(
        self, name: str, writer: Writer, load: OpenLoad, wanted: Wanted, claimed_ms: Sequence[int]
    ) -> None:
        """It was fenced: another bridge has taken over the shard, or a transaction took too long."""
        await self._drop(name, writer)
        self._count(name)
        if self._clock.monotonic() - writer.used < TIMEOUT_MS / 1000:  # else the shard was away, and is back
            await self._clock.sleep(JITTER.uniform(*WAIT_SECONDS))
        for topic, indices in _by_topic(wanted):
            since_ms = min(claimed_ms[index] for index in indices)
            with suppress(KafkaError):  # then it is seen behind our own fence
                there = await self._tail.ids(topic, self._topics.partitions(topic), since_ms)
                load.acked([index for index in indices if load.messages[index].id.encode() in there])

    def _count(self, name: str) -> None:
        now = self._clock.monotonic()
        times = self._fenced[name] = [*(time for time in self._fenced.get(name, ()) if now - time < OFTEN_SECONDS), now]
        if len(times) >= OFTEN:
            times.clear()
            self._context.events.stream_warned(
                f"the producer {self._name}:{name} was fenced {OFTEN} times within {OFTEN_SECONDS:g} s: bridges of"
                " different Redis servers or databases need different BRIDGE_NAMESPACE on one Kafka"
            )


def _by_topic(wanted: Wanted) -> Iterator[tuple[str, list[int]]]:
    for topic in dict.fromkeys(topic for _, topic in wanted):
        yield topic, [index for index, of in wanted if of == topic]
