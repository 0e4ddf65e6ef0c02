"""One lane for each partition that records are on their way to: they are sent one after the other, in their order.

While a batch of records is on its way, the next records for its partition gather in the following batch, no matter
which publish they belong to. So a hundred small publishes cost little more than one large one. A refusal stops its lane
only for a moment: if records are refused together, halving finds those that the broker accepts.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from aiokafka.errors import KafkaError, LeaderNotAvailableError
from aiokafka.structs import TopicPartition

from bridge.clock import Clock
from bridge.sinks.kafka.load import Load
from bridge.sinks.kafka.records import Headers, Place, Records, headers_of, size
from bridge.sinks.kafka.sequence import OF_SOME_RECORDS, TOO_LARGE, attempt_of, take_back
from bridge.tasks import end

FEWEST_BYTES = 1024

Refusal = Callable[[Records, BaseException], tuple[bool, str]]
"""Whether records that the broker has refused with an error never will be taken, and why, in words."""
Failure = Callable[[BaseException], object]


class Lanes:
    """All that is on its way by one producer. A lane exists as long as it has something to send."""

    def __init__(self, producer: Any, clock: Clock, refused: Refusal, failed: Failure) -> None:  # noqa: ANN401 - the library has no types
        """`refused` says what is refused with an error; `failed` hears of what may be stored: the session must end."""
        self._producer = producer
        self._clock = clock
        self._refused = refused
        self._failed = failed
        self._lanes: dict[Place, deque[Records]] = {}
        """What is not sent yet."""
        self._most: dict[str, int] = {}
        """The most bytes of records of several messages, by topic, where a broker has shown that it takes less."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_ack = 0.0

    @property
    def stalled(self) -> float:
        """For how many seconds the broker has answered nothing, although records are on their way."""
        return self._clock.monotonic() - self._last_ack if self._lanes else 0.0

    def new(self, place: Place) -> Records:
        """Records without messages, for `append`."""
        return Records(place, self._producer.create_batch())

    def put(self, place: Place, load: Load, index: int, headers: Headers, bytes_: int, room: int) -> None:
        """Send a message, with others if all together have `room` bytes at most."""
        lane = self._lanes.get(place)
        if not lane or lane[-1].bytes + bytes_ > min(room, self._most.get(place[0], room)):
            records = self.new(place)
            records.add(load, index, headers, bytes_)
            self.append(records)
        else:
            lane[-1].add(load, index, headers, bytes_)

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
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Send nothing more."""
        await end(list(self._tasks))

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Its records have no receipts if it failed: the library hands on whatever went wrong in its own tasks."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    async def _send(self, place: Place, lane: deque[Records]) -> None:
        topic, partition = place
        while lane:
            records = lane.popleft()
            if not self._led(place):
                self._refuse(records, LeaderNotAvailableError())
                continue
            attempt = None
            try:
                answer = await self._producer.send_batch(records.builder, topic, partition=partition)
                attempt = attempt_of(self._producer, place)
                await answer
            except (KafkaError, AssertionError, TypeError) as error:  # the last two: the topic has just changed
                if not take_back(self._producer, place, attempt, error):
                    self._failed(error)
                    return
                if isinstance(error, TOO_LARGE):
                    self._most[topic] = max(records.bytes // 2, FEWEST_BYTES)
                if isinstance(error, OF_SOME_RECORDS) and len(records) > 1:
                    lane.extendleft(reversed(self._halves(records)))
                else:
                    self._refuse(records, error)
            else:
                for load, indices in records.by_load():
                    load.acked(indices)
            self._last_ack = self._clock.monotonic()
        del self._lanes[place]

    def _led(self, place: Place) -> bool:
        """Whether the client knows who leads the partition; else it asks. A batch without one would hold up others."""
        client = self._producer.client
        leader = client.cluster.leader_for_partition(TopicPartition(*place))
        if leader is not None and leader >= 0:
            return True
        client.force_metadata_update()
        return False

    def _halves(self, records: Records) -> list[Records]:
        """The same messages in two: what of them is refused is found so."""
        items = list(zip(records.loads, records.indices, strict=True))
        halves = []
        for part in (items[: len(items) // 2], items[len(items) // 2 :]):
            half = self.new(records.place)
            for load, index in part:
                message = load.messages[index]
                headers = headers_of(message)
                half.add(load, index, headers, size(message, headers))
            halves.append(half)
        return halves

    def _refuse(self, records: Records, error: BaseException) -> None:
        never, reason = self._refused(records, error)
        for load, indices in records.by_load():
            reasons = dict.fromkeys(indices, reason)
            if never:
                load.rejected(reasons)
            else:
                load.refused(reasons)
