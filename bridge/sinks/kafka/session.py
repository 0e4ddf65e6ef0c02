"""One producer's life: batches are published by it until it ends, for a reason, for good.

A session is never repaired. Whatever goes wrong (a batch fails, no broker answers, nothing is acked for long) ends the
session: all batches under way end in NotConnected at once, and the sink makes a new producer. One that has
failed to deliver is of no more use: its sequence numbers have a hole, and the broker refuses what comes after it. So
there is one way back to health, and it reads the credentials afresh, asks the bootstrap servers and checks the topic.
"""

from typing import Any

from aiokafka.errors import (
    InvalidTimestampError,
    KafkaError,
    LeaderNotAvailableError,
    NotLeaderForPartitionError,
)

from bridge.contracts import Batch, Receipts
from bridge.errors import NotConnected
from bridge.sinks.kafka.cluster import Cluster, explained
from bridge.sinks.kafka.connect import connect, discard
from bridge.sinks.kafka.context import Context
from bridge.sinks.kafka.lanes import Lanes
from bridge.sinks.kafka.load import Load
from bridge.sinks.kafka.loading import Loading
from bridge.sinks.kafka.records import Records
from bridge.sinks.kafka.sequence import TOO_LARGE
from bridge.sinks.kafka.topics import Topics
from bridge.sinks.session_life import SessionLife


class KafkaSession:
    """One producer, with the batches under way. `start()` it once, `close()` it in any case."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._clock = context.clock
        self._limits = context.limits
        self._life = SessionLife("kafka", "Kafka", self._give_back)
        self._producer: Any = None
        self._topics: Topics
        self._lanes: Lanes | None = None
        self._loading: Loading

    async def start(self) -> None:
        """Connect, and check or create the topic. Raises NotConnected or Refused; then nothing is left to close."""
        await self._life.begin(self._start())

    async def publish(self, batch: Batch, receipts: Receipts) -> None:
        """See `Session.publish`."""
        await self._life.run(self._publish(Load(batch.messages, receipts)), "publish")

    async def ended(self) -> str:
        """See `Session.ended`."""
        return await self._life.ended()

    async def close(self) -> None:
        """End it, and return when all is given back: bounded, see `discard`. Never raises."""
        await self._life.close()

    async def _start(self) -> None:
        self._producer = await connect(self._context.settings, self._clock, self._limits)
        topics = self._topics = Topics(Cluster(self._producer.client, self._clock, self._limits), self._context)
        try:
            await topics.prepare()
        except KafkaError as error:
            raise NotConnected(f"Kafka does not answer: {explained(error)}") from None
        lanes = Lanes(self._producer, self._clock, self._refused, lambda error: self._life.end(explained(error)))
        self._lanes = lanes
        self._loading = Loading(lanes, topics, self._context)
        self._life.watch(self._watch(topics, lanes))

    async def _publish(self, load: Load) -> None:
        try:
            await self._loading.load(load)
        except KafkaError as error:
            self._life.end(explained(error))
            raise self._life.ended_error() from None
        await load.done.wait()

    def _refused(self, records: Records, error: BaseException) -> tuple[bool, str]:
        """See `Refusal`."""
        if isinstance(error, TOO_LARGE):
            bytes_ = records.builder.size()
            return True, f"{bytes_} bytes as a Kafka record are more than the topic takes ({explained(error)})"
        if isinstance(error, InvalidTimestampError):
            return False, (
                f"the topic does not take the time of the bridge's clock ({explained(error)}): set the clocks of the"
                " bridge and of the brokers, or the topic's message.timestamp limits"
            )
        if isinstance(error, LeaderNotAvailableError | NotLeaderForPartitionError):
            return False, "the partition has no leader: start the brokers that have it"
        self._topics.doubt(records.place[0])
        return False, f"the topic refuses it ({explained(error)})"

    async def _watch(self, topics: Topics, lanes: Lanes) -> None:
        while True:
            await self._clock.tick(self._limits.probe)
            if lanes.stalled > self._limits.stall:
                self._life.end(
                    f"nothing was acked for {self._limits.stall:g} s, though brokers answer: a partition may have no"
                    " leader, or too few replicas in sync"
                )
                return
            try:
                gone = await topics.vanished()
            except KafkaError:
                gone = "no broker answers"
            if gone:
                self._life.end(gone)
                return

    async def _give_back(self) -> None:
        if self._lanes is not None:
            await self._lanes.close()
        if self._producer is not None:
            await discard(self._producer, self._clock, self._limits)
