"""What can be found out about a topic without changing anything: see `examine`. And with one message: `store`.

It is looked at, and what the bridge would do to it is tried: creating it in a request that only validates, writing to
it in one that holds no records.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from aiokafka.errors import KafkaError

from bridge.contracts import Message
from bridge.errors import NotConnected
from bridge.settings import Settings
from bridge.sinks.kafka.clocks import AFTER_MAX, TIMESTAMP_TYPE
from bridge.sinks.kafka.cluster import Cluster, Found, explained
from bridge.sinks.kafka.partitioner import murmur2, partition_of
from bridge.sinks.kafka.records import alone
from bridge.sinks.kafka.topics import (
    BEFORE_MAX,
    CLEANUP,
    DENIED,
    LEADER_NOT_AVAILABLE,
    MAX_MESSAGE,
    MIN_IN_SYNC,
    NO_ERROR,
    RETENTION,
    UNKNOWN_TOPIC,
    new_config,
)

CONFIGS = (CLEANUP, MAX_MESSAGE, MIN_IN_SYNC, RETENTION)


@dataclass(frozen=True, slots=True)
class Examined:
    """A topic: what the brokers know of it, and what they would let us do."""

    found: Found
    writing: int
    """The error code of an attempt to write to it. It may tell of rights only: what has no records is refused."""
    creation: int | None = None
    """The error code with which its creation would end; None if it exists, or the bridge may not create it."""
    configs: Mapping[str, str] = field(default_factory=dict)
    """The values of CONFIGS, and those of timestamps, as far as there is a topic and the user may read them."""

    @property
    def exists(self) -> bool:
        """Whether there is such a topic, and we may see it."""
        return self.found.code in {NO_ERROR, LEADER_NOT_AVAILABLE} and bool(self.found.partitions)


async def examine(cluster: Cluster, topic: str, settings: Settings) -> Examined:
    """What `expiry-bridge check` judges. Raises NotConnected: no broker answers."""
    try:
        found = (await cluster.find([topic]))[topic]
        writing = (await cluster.try_to_write([topic]))[topic]
        if found.code in {UNKNOWN_TOPIC, DENIED} and settings.kafka_provision:
            partitions, replication, config = (
                settings.kafka_partitions,
                settings.kafka_replication,
                new_config(settings),
            )
            codes = await cluster.create([topic], partitions, replication, config, validate_only=True)
            return Examined(found, writing, creation=codes[topic])
        configs = await cluster.describe([topic], (*CONFIGS, TIMESTAMP_TYPE, AFTER_MAX, BEFORE_MAX))
        return Examined(found, writing, configs=configs.get(topic, {}))
    except KafkaError as error:
        raise NotConnected(f"Kafka does not answer: {explained(error)}") from None


async def store(cluster: Cluster, topic: str, message: Message, compression: str) -> tuple[int, int]:
    """Try once to store `message`, where the sink would: the partition, and the error code of the attempt.

    Raises NotConnected: no broker answers.
    """
    try:
        await cluster.refresh([topic])
        partition = partition_of(murmur2([message.key])[0], max(cluster.partitions(topic), 1))
        return partition, await cluster.write(topic, partition, alone(message, compression))
    except KafkaError as error:
        raise NotConnected(f"Kafka does not answer: {explained(error)}") from None
