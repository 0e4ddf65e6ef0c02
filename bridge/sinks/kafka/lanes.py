"""One lane for each partition that something is on its way to: records are sent one after the other, in their order.

While a batch of records is on its way, what comes next for its partition gathers in the following one, of whichever
publish it is. So many small publishes cost little more than a few large ones.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from aiokafka.errors import KafkaError

from bridge.clock import Clock
from bridge.contracts import Message
from bridge.sinks.kafka.records import Headers, Place, Records
from bridge.tasks import end


class Lanes:
    """All that is on its way by one producer. A lane exists as long as it has something to send."""

    def __init__(self, producer: Any, clock: Clock, failed: Callable[[Records, BaseException], None]) -> None:  # noqa: ANN401 - the library has no types
        """`failed` is told what was not stored; after that, nothing more may be."""
        self._producer = producer
        self._clock = clock
        self._failed = failed
        self._lanes: dict[Place, deque[Records]] = {}
        """What is not sent yet."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_ack = 0.0

    @property
    def stalled(self) -> float:
        """For how many seconds nothing was acked though something is on its way."""
        return self._clock.monotonic() - self._last_ack if self._lanes else 0.0

    def new(self, place: Place) -> Records:
        """Records without messages, for `append`."""
        return Records(place, self._producer.create_batch())

    def put(self, place: Place, message: Message, headers: Headers, bytes_: int, room: int) -> Records:
        """Send the message, with others if all together have `room` bytes at most; the records that hold it now."""
        lane = self._lanes.get(place)
        if not lane or lane[-1].bytes + bytes_ > room:
            records = self.new(place)
            records.add(message, headers, bytes_)
            self.append(records)
            return records
        records = lane[-1]
        records.add(message, headers, bytes_)
        return records

    def append(self, records: Records) -> None:
        """Send these records after all others of their place."""
        lane = self._lanes.get(records.place)
        if lane is not None:
            lane.append(records)
            return
        if not self._lanes:
            self._last_ack = self._clock.monotonic()
        lane = self._lanes[records.place] = deque([records])
        task = asyncio.create_task(self._send(records.place, lane), name="kafka-lane")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Send nothing more."""
        await end(list(self._tasks))

    async def _send(self, place: Place, lane: deque[Records]) -> None:
        topic, partition = place
        while lane:
            records = lane.popleft()
            try:
                answer = await self._producer.send_batch(records.builder, topic, partition=partition)
                await answer
            except (KafkaError, AssertionError, TypeError) as error:  # the last two: the topic has just changed
                self._failed(records, error)
                return
            self._last_ack = self._clock.monotonic()
            records.stored.set_result(None)
        del self._lanes[place]
