"""One session of `BRIDGE_KAFKA_DEDUPLICATION=transaction`: a transactional producer for each shard that it delivers.

Where another bridge has fenced a producer, that one is replaced (`writers`). Whatever else goes wrong ends the session,
for all shards: a batch failed, no broker answers. New producers fence the former ones, and read what those have
committed.
"""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from bridge.contracts import Batch, Receipts, Run
from bridge.errors import NotConnected, Refused
from bridge.sinks.kafka.cluster import Cluster, explained
from bridge.sinks.kafka.connect import admitted, begin
from bridge.sinks.kafka.context import Context
from bridge.sinks.kafka.load import OpenLoad, OutboxPlace
from bridge.sinks.kafka.tail import Tail
from bridge.sinks.kafka.topics import CLEANUP, Topics
from bridge.sinks.kafka.writer import Fitted
from bridge.sinks.kafka.writers import Writers
from bridge.sinks.session_life import SessionLife

TIMESTAMPS = "message.timestamp.type"
UNREADABLE = (
    "the Kafka user may not read the topic, so it is unknown what is committed: allow it to (ACL operation Read)"
)


def unfit(configs: Mapping[str, str]) -> str:
    """Why what is in a topic of this configuration cannot be known; empty if it can."""
    if configs.get(TIMESTAMPS) == "LogAppendTime":
        return f"{TIMESTAMPS} is LogAppendTime: records are found by the time of their claims (set CreateTime)"
    if "compact" in configs.get(CLEANUP, ""):
        return f"it is compacted, and forgets what it had (set {CLEANUP}=delete)"
    return ""


class TransactionalSession:
    """`start()` it once, `close()` it in any case."""

    def __init__(self, context: Context, name: str, fitted: Fitted) -> None:
        """`name`: what all its transactional ids begin with."""
        self._context = context
        self._clock = context.clock
        self._limits = context.limits
        self._name = name
        self._fitted = fitted
        self._life = SessionLife("kafka", "Kafka", self._give_back)
        self._tail = Tail(context.settings, context.clock, context.limits)
        self._writers: Writers
        self._consumer: Any = None
        """Only for its client, which asks about topics."""
        self._topics: Topics

    async def start(self) -> None:
        """Connect, and check or create the topic. Raises NotConnected or Refused; then nothing is left to close."""
        await self._life.begin(self._start())

    async def publish(self, batch: Batch, receipts: Receipts) -> None:
        """See `Session.publish`."""
        await self._life.run(self._publish(batch, OpenLoad(batch.messages, receipts, _places(batch))), "publish")

    async def ended(self) -> str:
        """See `Session.ended`."""
        return await self._life.ended()

    async def close(self) -> None:
        """See `Session.close`."""
        await self._life.close()

    async def _start(self) -> None:
        options = await admitted(self._context.settings, self._clock, self._limits)
        self._consumer = AIOKafkaConsumer(**options, enable_auto_commit=False)
        try:
            async with self._clock.timeout(self._limits.start):
                await begin(self._consumer)
            cluster = Cluster(self._consumer._client, self._clock, self._limits)  # noqa: SLF001 - it has no public name
            topics = self._topics = Topics(cluster, self._context)
            await topics.prepare()
            if fixed := self._context.names.fixed:
                configs = (await cluster.describe([fixed], (TIMESTAMPS, CLEANUP))).get(fixed, {})
                if why := unfit(configs):
                    raise Refused(f"topic {fixed} does not suit BRIDGE_KAFKA_DEDUPLICATION=transaction: {why}")
        except (KafkaError, OSError) as error:  # OSError includes TimeoutError
            raise NotConnected(f"Kafka does not answer: {_words(error)}") from None
        self._writers = writers = Writers(self._name, topics, self._tail, self._context, self._fitted)
        if self._fitted.refused is not None:  # else it would be connected, and of no use, again and again
            await writers.open(self._fitted.refused)
            self._fitted.refused = None
        self._life.watch(self._watch(topics))

    async def _publish(self, batch: Batch, load: OpenLoad) -> None:
        names, writer = self._context.names, ""
        names_of = [name for run in batch.runs for name in [_writer_of(run)] * run.length]
        topics = [names.of_message(message) for message in batch.messages]
        claimed_ms = [run.claimed_ms for run in batch.runs for _ in range(run.length)]
        try:
            never, later = await self._topics.ensure(set(topics))
            load.rejected({index: never[topic] for index, topic in enumerate(topics) if topic in never})
            for alone in (False, True):
                load.refused(
                    {
                        index: later[topic]
                        for index, topic in enumerate(topics)
                        if topic in later and self._topics.unsuitable(topic) is alone
                    },
                    alone=alone,
                )
            wanted = [(index, of) for index, of in enumerate(topics) if of not in never and of not in later]
            for name, part in groupby(wanted, lambda item: names_of[item[0]]):
                writer = name
                why = await self._writers.write(name, batch.runs[0].shard, load, list(part), claimed_ms)
                if why is not None:  # to keep the order, nor is what comes after it
                    load.refused(dict.fromkeys(sorted(load.open), why))
                    return
        except (KafkaError, NotConnected, Refused) as error:
            if isinstance(error, Refused) and writer:
                self._fitted.refused = writer
            self._life.end(_words(error))
            raise self._life.ended_error() from None

    async def _watch(self, topics: Topics) -> None:
        while True:
            await self._clock.tick(self._limits.probe)
            try:
                gone = await topics.vanished()
            except KafkaError:
                gone = "no broker answers"
            if gone:
                self._life.end(gone)
                return

    async def _give_back(self) -> None:
        if hasattr(self, "_writers"):
            await self._writers.close()
        if self._consumer is not None:
            await self._tail.stop(self._consumer)


def _writer_of(run: Run) -> str:
    """The shard of its claims; dead letters that are sent again do not fence the bridge that runs."""
    if run.origin is None:
        return str(run.shard)
    return "dead" if run.origin.is_alone else str(run.origin.shard)


def _places(batch: Batch) -> list[OutboxPlace]:
    found: list[OutboxPlace] = []
    for run in batch.runs:
        fence, number = map(int, run.entry.split(b"-"))
        found += [(fence, number, index) for index in range(run.first, run.first + run.length)]
    return found


def _words(error: BaseException) -> str:
    if isinstance(error, TopicAuthorizationFailedError):
        return UNREADABLE
    if isinstance(error, NotConnected | Refused):
        return str(error)
    return explained(error)
