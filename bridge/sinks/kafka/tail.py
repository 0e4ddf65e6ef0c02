"""The end of topics: which ids are committed there since some time.

A look begins where the records of that time begin, by their timestamps, which are the times of the claims. It ends at
the high watermark: all that a fenced producer may have committed lies before it. What other transactions hold back is
waited for: they end, or time out. Why nothing is remembered instead: `bridge/decisions/0014-the-end-of-the-topic.md`.
"""

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from bridge.clock import Clock
from bridge.limits import KafkaLimits
from bridge.settings import Settings
from bridge.sinks.kafka.connect import admitted, begin

POLL_MS = 200
NEVER_MS = 2**62
"""Later than any claim."""
STABLE, ALL = "read_committed", "read_uncommitted"


def isolation(settings: Settings) -> str:
    """What consumers read so that they see each message once."""
    return STABLE if settings.kafka_deduplication == "transaction" else ALL


class Tail:
    """Looks, each by consumers of its own: there is one when a shard is taken over, or a session begins."""

    def __init__(self, settings: Settings, clock: Clock, limits: KafkaLimits) -> None:
        self._settings = settings
        self._clock = clock
        self._limits = limits

    async def ids(self, topic: str, partitions: int, since_ms: int = NEVER_MS, least: int = 0) -> set[bytes]:
        """The ids in all partitions, of claims since then, and perhaps others; at `least` so many, if there are any.

        Raises KafkaError, NotConnected or Refused.
        """
        options = await admitted(self._settings, self._clock, self._limits)
        consumers = [
            AIOKafkaConsumer(**options, isolation_level=level, enable_auto_commit=False, auto_offset_reset="earliest")
            for level in (STABLE, ALL)
        ]
        stable, all_ = consumers
        places = [TopicPartition(topic, number) for number in range(partitions)]
        try:
            async with self._clock.timeout(self._limits.start):
                await asyncio.gather(*map(begin, consumers))
                stable.assign(places)
                ends = await all_.end_offsets(places)  # what is committed later is not of a fenced producer
                unstable = await stable.end_offsets(places)  # before the next: what is found there ends here
                found = await stable.offsets_for_times(dict.fromkeys(places, since_ms))
            begins = {place: unstable[place] if found.get(place) is None else found[place].offset for place in places}
            begins = {place: max(min(begin, ends[place] - least), 0) for place, begin in begins.items()}
            return await self._read(stable, begins, ends)
        except TimeoutError:
            raise KafkaError("the end of the topic cannot be read") from None
        finally:
            await asyncio.gather(*(self.stop(consumer) for consumer in consumers))

    async def _read(
        self,
        consumer: Any,  # noqa: ANN401 - the library has no types
        begins: dict[TopicPartition, int],
        ends: dict[TopicPartition, int],
    ) -> set[bytes]:
        ids: set[bytes] = set()
        left = {place for place, begin in begins.items() if begin < ends[place]}
        for place in left:
            consumer.seek(place, begins[place])
        moved, before = self._clock.monotonic(), -1
        while left:
            consumer.pause(*(consumer.assignment() - left))
            for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                for record in records:
                    ids.update(value for name, value in record.headers if name == "ce_id")
            positions = {place: await consumer.position(place) for place in left}
            left = {place for place, position in positions.items() if position < ends[place]}
            if (now := sum(positions.values())) != before:
                moved, before = self._clock.monotonic(), now
            elif self._clock.monotonic() - moved > self._limits.stall:
                raise KafkaError("the end of the topic cannot be read: another transaction holds it back")
        return ids

    async def stop(self, consumer: Any) -> None:  # noqa: ANN401 - likewise
        """Bounded. Each step in a task of its own: the library may end with an unrequested cancellation."""
        for step in (consumer.stop, consumer._client.close):  # noqa: SLF001 - it has no public name
            closing = asyncio.create_task(step(), name="kafka-tail-close")
            await self._clock.all([closing], self._limits.close)
            if not closing.done():
                closing.cancel()
            await asyncio.wait([closing])
