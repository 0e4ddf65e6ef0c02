"""One session of `BRIDGE_KAFKA_DEDUPLICATION=transaction`: a transactional producer for each shard that it delivers.

Whatever goes wrong ends the session, for all shards: another bridge has fenced one of them, a batch failed, no broker
answers. The next session makes new producers, which fence the former ones, and reads what those have committed.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import BrokerResponseError, KafkaError, ProducerFenced, TopicAuthorizationFailedError

from bridge.backoff import JITTER
from bridge.contracts import Batch, Receipts
from bridge.errors import BridgeError, NotConnected, Refused
from bridge.sinks.kafka.cluster import Cluster
from bridge.sinks.kafka.connect import admitted
from bridge.sinks.kafka.context import Context
from bridge.sinks.kafka.load import Load
from bridge.sinks.kafka.tail import Tail
from bridge.sinks.kafka.topics import CLEANUP, Topics
from bridge.sinks.kafka.writer import Fitted, Writer
from bridge.sinks.session_end import SessionEnd
from bridge.tasks import end

TIMESTAMPS = "message.timestamp.type"
UNREADABLE = (
    "the Kafka user may not read the topic, so nobody knows what is committed already: allow it to (ACL operation Read)"
)
FENCED = "another bridge has taken over the shard, or a transaction took too long"

FENCED_SECONDS = 0.2, 2.0
"""Before a session that follows on one that was fenced. The other one needs some tenths of a second."""


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
        self._end = SessionEnd()
        self._tail = Tail(context.settings, context.clock, context.limits)
        self._writers: dict[str, Writer] = {}
        """By the last part of their transactional ids."""
        self._opening = asyncio.Lock()
        self._working: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._disposal: asyncio.Task[None] | None = None
        self._consumer: Any = None
        """Only for its client, which asks about topics."""
        self._topics: Topics

    async def start(self) -> None:
        """Connect, and check or create the topic. Raises NotConnected or Refused; then nothing is left to close."""
        try:
            await self._while_it_lasts(self._start(), "kafka-start")
        except BaseException:
            await self.close()
            raise

    async def publish(self, batch: Batch, receipts: Receipts) -> None:
        """See `Session.publish`."""
        if self._end.reason is not None:
            raise self._ended()
        await self._while_it_lasts(self._publish(batch, receipts), "kafka-publish")

    async def ended(self) -> str:
        """See `Session.ended`."""
        return await self._end.wait()

    def end(self, reason: str) -> None:
        """End the session: all batches under way end in NotConnected."""
        if self._end.set(reason):
            self._disposal = asyncio.create_task(self._dispose(), name="kafka-disposal")

    async def close(self) -> None:
        """See `Session.close`."""
        self.end("closed")
        if self._disposal is not None:
            await asyncio.shield(self._disposal)

    async def _start(self) -> None:
        if self._fitted.fenced:  # two that fence each other in turn would never end
            self._fitted.fenced = False
            await self._clock.sleep(JITTER.uniform(*FENCED_SECONDS))
        options = await admitted(self._context.settings, self._clock, self._limits)
        self._consumer = AIOKafkaConsumer(**options, enable_auto_commit=False)
        try:
            async with self._clock.timeout(self._limits.start):
                await self._consumer.start()
            cluster = Cluster(self._consumer._client, self._clock, self._limits)  # noqa: SLF001 - it has no public name
            topics = self._topics = Topics(cluster, self._context)
            await topics.prepare()
            if fixed := self._context.names.fixed:
                configs = (await cluster.describe([fixed], (TIMESTAMPS, CLEANUP))).get(fixed, {})
                if why := unfit(configs):
                    raise Refused(f"topic {fixed} does not suit BRIDGE_KAFKA_DEDUPLICATION=transaction: {why}")
        except (KafkaError, OSError) as error:  # OSError includes TimeoutError
            raise NotConnected(f"Kafka does not answer: {_words(error)}") from None
        self._watching = asyncio.create_task(self._watch(topics), name="kafka-watch")
        self._watching.add_done_callback(self._on_watch_ended)

    async def _publish(self, batch: Batch, receipts: Receipts) -> None:
        load, names = Load(batch.messages, receipts), self._context.names
        topics = [names.of_message(message) for message in batch.messages]
        claimed_ms = [run.claimed_ms for run in batch.runs for _ in range(run.length)]
        try:
            never, later = await self._topics.ensure(set(topics))
            load.rejected({index: never[topic] for index, topic in enumerate(topics) if topic in never})
            load.refused({index: later[topic] for index, topic in enumerate(topics) if topic in later})
            wanted = [(index, of) for index, of in enumerate(topics) if of not in never and of not in later]
            if wanted:
                writer = await self._writer(_writer_of(batch))
                await writer.write(load, wanted, claimed_ms)
        except (KafkaError, NotConnected, Refused) as error:
            self._fitted.fenced = isinstance(error, ProducerFenced)
            self.end(_words(error))
            raise self._ended() from None

    async def _writer(self, name: str) -> Writer:
        async with self._opening:
            if name not in self._writers:
                id_ = f"{self._name}:{name}"
                self._writers[name] = await Writer.open(id_, self._topics, self._tail, self._context, self._fitted)
            return self._writers[name]

    async def _watch(self, topics: Topics) -> None:
        while True:
            await self._clock.sleep(self._limits.probe)
            try:
                gone = await topics.vanished()
            except KafkaError:
                return self.end("no broker answers")
            if gone:
                return self.end(gone)

    def _on_watch_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:  # a bug; unwatched, the session must not go on
            self.end(f"{task.get_name()} failed: {type(task.exception()).__name__}")

    async def _while_it_lasts(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._working.add(task)
        try:
            await asyncio.wait([task])
        finally:
            self._working.discard(task)
            if not task.done():
                await end([task])
        if task.cancelled():
            raise self._ended()
        task.result()

    async def _dispose(self) -> None:
        await end(list(self._working))
        if self._watching is not None:
            await end([self._watching])
        await asyncio.gather(*(writer.close() for writer in self._writers.values()))
        if self._consumer is not None:
            await self._tail.stop(self._consumer)

    def _ended(self) -> BridgeError:
        return NotConnected(f"the connection to Kafka ended: {self._end.reason}")


def _writer_of(batch: Batch) -> str:
    """The shard; dead letters that are sent again do not fence the bridge that runs."""
    run = batch.runs[0]
    return "dead" if run.origin is not None and run.origin.is_alone else str(run.shard)


def _words(error: BaseException) -> str:
    """Without the library's own words, which may name a topic, and so part of a key."""
    if isinstance(error, ProducerFenced):
        return FENCED
    if isinstance(error, TopicAuthorizationFailedError):
        return UNREADABLE
    if isinstance(error, NotConnected | Refused):
        return str(error)
    if isinstance(error, BrokerResponseError):
        return f"{error.message}, error {error.errno}"
    return str(error) if type(error) is KafkaError else type(error).__name__
