"""Reading a Kafka topic: a consumer that is in no group, made anew from where it was when the brokers are lost."""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from bridge.clock import SystemClock
from bridge.commands.readers.arrivals import Arrival, read_event
from bridge.errors import ErrorKind, NotConnected, Refused
from bridge.limits import KafkaLimits
from bridge.settings import Settings
from bridge.sinks.kafka.cluster import Cluster, words
from bridge.sinks.kafka.connect import admitted, begin
from bridge.sinks.kafka.names import TopicTemplate
from bridge.sinks.kafka.tail import ALL, isolation
from bridge.tasks import end

REQUEST_SECONDS = 5.0
CLOCK, LIMITS = SystemClock(), KafkaLimits(request=REQUEST_SECONDS)
START_SECONDS = 15.0
CLOSE_SECONDS = 2.0
READ_MS = 250
LOOK_SECONDS = 2.0
"""How often it is made sure that the brokers answer, and have no more partitions than are read."""
BROKERS_TIME = 1
"""The type of a record's timestamp that is the broker's (LogAppendTime), not the producer's."""
ATTRIBUTE_PREFIX = "ce_"
NO_ERROR, UNKNOWN_TOPIC, LEADER_NOT_AVAILABLE, DENIED = 0, 3, 5, 29


class KafkaReader:
    """See `Reader`."""

    def __init__(self, settings: Settings, db: int, examples: tuple[bytes, bytes]) -> None:
        """See `create`. The keys must share what stands before their first colon."""
        self._settings = settings
        names = TopicTemplate(settings.kafka_topic, db)
        self._topic = names.of(examples[0])
        self._comes_later = names.fixed is None
        """Whether the bridge creates the topic with the first of its messages, not when it starts."""
        self._consumer: Any = None
        self._cluster: Cluster
        self._positions: dict[TopicPartition, int] = {}
        """Of each partition, what comes next."""
        self._opened = False
        self._looked_at = 0.0

    @property
    def place(self) -> str:
        """See `Reader`."""
        return f"Kafka topic {self._topic}"

    async def open(self) -> None:
        """See `Reader`."""
        await self.close()
        # It complains of brokers that are down, which our own errors do.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        options = await admitted(self._settings, CLOCK, LIMITS)
        self._consumer = AIOKafkaConsumer(
            **options,
            isolation_level=isolation(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                await begin(self._consumer)
            self._cluster = Cluster(self._consumer._client, CLOCK, LIMITS)  # noqa: SLF001 - the producer's is public, this one is not
            await self._look()
        except TopicAuthorizationFailedError:
            raise self._denied() from None
        except (OSError, KafkaError) as error:
            raise self._failed(error) from None
        self._opened = True

    async def read(self) -> list[Arrival]:
        """See `Reader`."""
        if self._consumer is None:
            raise NotConnected("not open")
        try:
            if time.monotonic() - self._looked_at >= LOOK_SECONDS:
                await self._look()
            if not self._positions:  # there is no topic yet
                await asyncio.sleep(READ_MS / 1000)
                return []
            found = await self._consumer.getmany(timeout_ms=READ_MS)
        except TopicAuthorizationFailedError:
            raise self._denied() from None
        except (OSError, KafkaError) as error:
            raise self._failed(error) from None
        arrivals = []
        for place, records in found.items():
            self._positions[place] = records[-1].offset + 1
            arrivals += [arrival for arrival in map(arrival_of, records) if arrival is not None]
        return arrivals

    async def close(self) -> None:
        """See `Reader`."""
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        await stop(consumer)

    async def _look(self) -> None:
        """Read all partitions that there are now: what is new since the first look, from its beginning."""
        code = (await self._cluster.find([self._topic]))[self._topic].code
        if code == DENIED:
            raise self._denied()
        if code == UNKNOWN_TOPIC and not self._comes_later and not self._opened:
            raise Refused(
                f"topic {self._topic} does not exist", "check BRIDGE_KAFKA_TOPIC, and that the bridge has run"
            )
        if code not in {NO_ERROR, UNKNOWN_TOPIC, LEADER_NOT_AVAILABLE}:
            raise NotConnected(f"topic {self._topic} is not ready: {words(code)}")
        if code != UNKNOWN_TOPIC:
            await self._cluster.refresh([self._topic])
        places = [TopicPartition(self._topic, number) for number in range(self._cluster.partitions(self._topic))]
        new = [place for place in places if place not in self._positions]
        if new and not self._opened:
            self._positions |= await self._ends(new)
        else:
            self._positions |= dict.fromkeys(new, 0)
        if set(self._positions) != self._consumer.assignment():
            self._consumer.assign(list(self._positions))
            for place, offset in self._positions.items():
                self._consumer.seek(place, offset)
        self._looked_at = time.monotonic()

    async def _ends(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Where the next records will be. What is committed is acked a moment before its readers may see it."""
        if isolation(self._settings) == ALL:
            ends: dict[TopicPartition, int] = await self._consumer.end_offsets(places)
            return ends
        other = AIOKafkaConsumer(**await admitted(self._settings, CLOCK, LIMITS), enable_auto_commit=False)
        try:
            await other.start()
            ends = await other.end_offsets(places)
        finally:
            await stop(other)
        return ends

    def _denied(self) -> Refused:
        return Refused(
            f"the Kafka user may not read topic {self._topic}",
            "allow it to (ACL operations Read and Describe), or use another user (BRIDGE_KAFKA_SASL_USERNAME)",
            ErrorKind.DENIED,
        )

    def _failed(self, error: Exception) -> NotConnected:
        servers = ",".join(self._settings.kafka_bootstrap_servers)
        return NotConnected(f"Kafka at {servers} does not answer: {str(error) or type(error).__name__}")


async def stop(consumer: Any) -> None:  # noqa: ANN401 - the library has no types
    """Give everything back that belongs to it, within a bounded time. Never raises."""
    # Each in a task of its own: the library can end half way with an unrequested cancellation.
    for step in (consumer.stop, consumer._client.close):  # noqa: SLF001 - see `open`
        closing = asyncio.create_task(step(), name="kafka-reader-close")
        await asyncio.wait([closing], timeout=CLOSE_SECONDS)
        await end([closing])


def arrival_of(record: Any) -> Arrival | None:  # noqa: ANN401 - likewise
    """What a record announces; None, if that is no expiration."""
    headers: Mapping[str, bytes] = dict(record.headers)
    attributes = {
        name.removeprefix(ATTRIBUTE_PREFIX): value.decode(errors="replace")
        for name, value in headers.items()
        if name.startswith(ATTRIBUTE_PREFIX) and value is not None
    }
    stored_ms = float(record.timestamp) if record.timestamp_type == BROKERS_TIME else None
    return read_event(record.value or b"", attributes, stored_ms)
