"""What the topic must be for the bridge, by one small function per check.

To add one, write the function and enter it in TOPIC_CHECKS, or in CONFIG_CHECKS if it needs the topic's configuration.
No text names a topic that depends on a key.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bridge.commands.check.findings import Finding, Row, failure, message_bytes, passed, too_large, warning
from bridge.commands.check.kafka.remedies import AGAIN, MEGABYTE, Tools
from bridge.settings import Settings
from bridge.sinks.kafka.cluster import Partition, words
from bridge.sinks.kafka.inspection import CONFIGS, Examined
from bridge.sinks.kafka.names import TopicTemplate
from bridge.sinks.kafka.topics import (
    CLEANUP,
    CLUSTER_DENIED,
    DENIED,
    EXISTS,
    HOUR_MS,
    INVALID_CONFIG,
    INVALID_PARTITIONS,
    INVALID_REPLICATION,
    INVALID_TOPIC,
    MAX_MESSAGE,
    MIN_IN_SYNC,
    NO_ERROR,
    POLICY_VIOLATION,
    RETENTION,
    UNKNOWN_TOPIC,
)

AREA = "Kafka"
RETENTION_MS = HOUR_MS
"""Keeping messages for less is warned of: a consumer that is down must have time to come back."""
WEEK_MS = 7 * 24 * HOUR_MS
REPLICAS = 3


@dataclass(frozen=True, slots=True)
class Topic:
    """The topic as it is, and what the settings ask for."""

    examined: Examined
    settings: Settings
    names: TopicTemplate
    tools: Tools
    brokers: int

    @property
    def config(self) -> Mapping[str, str]:
        """What is configured, as far as it can be read."""
        return self.examined.configs

    @property
    def partitions(self) -> list[Partition]:
        """Those that have a leader. The others are another check's."""
        return [partition for partition in self.examined.found.partitions if partition.led]


def judge(topic: Topic) -> list[Row]:
    """All rows about the topic."""
    code = topic.examined.found.code
    checks: dict[str, Check]
    if topic.names.fixed is None:
        checks = {"topic": _of_keys, "right to write": _right}
    elif topic.examined.exists:
        checks = {"topic": _existing, "right to write": _right, **TOPIC_CHECKS}
        checks |= CONFIG_CHECKS if all(map(topic.config.get, CONFIGS)) else {"configuration": _unreadable}
    elif code == UNKNOWN_TOPIC:
        checks = {"topic": _missing, "right to write": _right, "replication": _new_replication}
    elif code == DENIED:  # who may write to a topic may see it, too
        checks = {"right to write": _right}
    else:
        checks = {"topic": _unusable}
    return [Row(AREA, name, check(topic)) for name, check in checks.items()]


def _existing(topic: Topic) -> Finding:
    count = len(topic.examined.found.partitions)
    return passed(f"{topic.names.fixed} exists, with {count} partition{'s' * (count != 1)}")


def _unusable(topic: Topic) -> Finding:
    code = topic.examined.found.code
    remedy = "change BRIDGE_KAFKA_TOPIC" if code == INVALID_TOPIC else AGAIN
    return failure(f"{topic.names.fixed} cannot be used ({words(code)})", remedy)


def _missing(topic: Topic) -> Finding:
    found, code = f"{topic.names.fixed} does not exist", topic.examined.creation
    if code is None:
        return failure(found, f"{topic.tools.create()}; or set BRIDGE_KAFKA_PROVISION=true")
    if code in {NO_ERROR, EXISTS}:
        return passed(f"{found} yet: the bridge creates it when it starts")
    if code in {DENIED, CLUSTER_DENIED}:
        remedy = f"{topic.tools.create()}; or {topic.tools.allow('Create')}"
        return failure(f"{found}, and user {topic.tools.user} may not create it", remedy)
    return failure(f"{found}, and cannot be created ({words(code)})", _creation_remedy(code))


def _of_keys(topic: Topic) -> Finding:
    found, code = f"depends on the key ({topic.settings.kafka_topic}): none was looked at", topic.examined.creation
    if not topic.settings.kafka_provision:
        return warning(
            f"{found}; messages for one that does not exist become dead letters",
            "make sure that there is one for each prefix; or set BRIDGE_KAFKA_PROVISION=true",
        )
    if code in {None, NO_ERROR, EXISTS}:
        return passed(f"{found}; the bridge creates those that are missing")
    if code in {DENIED, CLUSTER_DENIED}:  # a right to create some of them is not seen here
        remedy = topic.tools.allow("Create")
        return warning(f"{found}; user {topic.tools.user} may not create all of those that are missing", remedy)
    return failure(f"{found}; those that are missing cannot be created ({words(code)})", _creation_remedy(code))


def _creation_remedy(code: int) -> str:
    if code in {INVALID_TOPIC, POLICY_VIOLATION}:
        return "change BRIDGE_KAFKA_TOPIC, or create it as the rules of this Kafka want it"
    if code in {INVALID_PARTITIONS, INVALID_REPLICATION, INVALID_CONFIG}:
        return "check BRIDGE_KAFKA_PARTITIONS, BRIDGE_KAFKA_REPLICATION and BRIDGE_KAFKA_RETENTION_HOURS"
    return AGAIN


def _right(topic: Topic) -> Finding:
    user, name = topic.tools.user, topic.names.fixed
    denied = topic.examined.writing == DENIED
    if name is None:
        named = f"topics whose names begin with {topic.names.stem}"
        if denied:  # a right to each of those that are in use is not seen here
            return warning(f"user {user} may not write to all {named}", topic.tools.allow("Write"))
        return passed(f"user {user} may write to {named}, as an idempotent producer")
    if denied:
        return failure(f"user {user} may not write to {name}", topic.tools.allow("Write"))
    return passed(f"user {user} may write to {name}, as an idempotent producer")


def _leaders(topic: Topic) -> Finding:
    count = len(topic.examined.found.partitions)
    without = count - len(topic.partitions)
    if not without:
        return passed("each partition has one")
    remedy = f"start the brokers that have it: {topic.tools.show('--unavailable-partitions')}"
    return failure(f"{without} of {count} partitions have none, and take nothing", remedy)


def _replication(topic: Topic) -> Finding:
    partitions, replicas = topic.partitions, topic.examined.found.replicas
    minimum = int(topic.config.get(MIN_IN_SYNC, 1))
    found = f"{replicas} replica{'s' * (replicas != 1)}"
    if MIN_IN_SYNC in topic.config:
        found += f", {MIN_IN_SYNC}={minimum}"
    if few := _lagging(partitions, minimum):
        remedy = f"start the brokers that are missing: {topic.tools.show('--under-min-isr-partitions')}"
        return failure(f"{found}: {few} of {len(partitions)} partitions have fewer in sync, and ack nothing", remedy)
    if minimum > replicas:  # since Kafka 3.7 it counts for no more than there are
        remedy = f"{_more_replicas(topic)}; or {topic.tools.configure(MIN_IN_SYNC, replicas)}"
        return warning(f"{found}: Kafka before 3.7 acks nothing, a newer one takes it for {replicas}", remedy)
    if replicas == 1:
        return warning(f"{found}: an ack is kept by one broker only, and lost with it", _more_replicas(topic))
    if minimum == 1 and MIN_IN_SYNC in topic.config:
        remedy = topic.tools.configure(MIN_IN_SYNC, 2)
        return warning(f"{found}: an ack may be kept by one broker only, and lost with it", remedy)
    if behind := _lagging(partitions, replicas):
        remedy = f"start the brokers that are missing: {topic.tools.show('--under-replicated-partitions')}"
        return warning(f"{found}: {behind} of {len(partitions)} partitions have not all of them in sync", remedy)
    return passed(found)


def _lagging(partitions: Sequence[Partition], wanted: int) -> int:
    """How many partitions have fewer replicas in sync than `wanted`, or than all that they have."""
    return sum(partition.in_sync < min(wanted, partition.replicas) for partition in partitions)


def _new_replication(topic: Topic) -> Finding:
    replicas = topic.settings.kafka_replication
    if replicas == 1:
        return warning(
            "BRIDGE_KAFKA_REPLICATION=1: an ack will be kept by one broker only, and lost with it",
            f"set BRIDGE_KAFKA_REPLICATION={REPLICAS}, before the topic is created",
        )
    if replicas < 0 and topic.brokers > 1 and topic.examined.creation in {None, NO_ERROR}:
        wanted = min(REPLICAS, topic.brokers)
        return warning(
            "left to the brokers' default.replication.factor, which is 1 unless it was changed",
            f"set BRIDGE_KAFKA_REPLICATION={wanted}, before the topic is created; or make sure of it",
        )
    return passed("as the broker's default says" if replicas < 0 else f"{replicas} replicas")


def _more_replicas(topic: Topic) -> str:
    more = REPLICAS - topic.brokers
    start = f"add {more} broker{'s' * (more != 1)}, and then " if more > 0 else ""
    return f"{start}give it {REPLICAS} replicas: {topic.tools.replicate()}"


def _unreadable(topic: Topic) -> Finding:
    found = "cannot be read: whether messages fit, how long they are kept, how many brokers keep what is acked"
    return warning(found, topic.tools.allow("DescribeConfigs"))


def _message_size(topic: Topic) -> Finding:
    limit = int(topic.config[MAX_MESSAGE])
    wanted = message_bytes(topic.settings)
    if limit >= wanted:
        return passed(f"up to {limit} bytes")
    return warning(
        f"up to {limit} bytes: messages {too_large(topic.settings)} become dead letters",
        topic.tools.configure(MAX_MESSAGE, max(MEGABYTE, wanted)),
    )


def _cleanup_policy(topic: Topic) -> Finding:
    policy = topic.config[CLEANUP]
    if "compact" not in policy:
        return passed(policy)
    return warning(
        f"{policy}: compaction drops the expirations of a key but for the last",
        topic.tools.configure(CLEANUP, "delete"),
    )


def _retention(topic: Topic) -> Finding:
    kept = int(topic.config[RETENTION])
    if "delete" not in topic.config[CLEANUP] or kept < 0:
        return passed("no limit of time")
    if kept >= RETENTION_MS:
        return passed(f"{kept / HOUR_MS:g} h")
    return warning(
        f"{kept / 1000:g} s: a consumer that is down for longer misses messages",
        topic.tools.configure(RETENTION, WEEK_MS),
    )


Check = Callable[[Topic], Finding]

TOPIC_CHECKS: Mapping[str, Check] = {
    "leaders": _leaders,
    "replication": _replication,
}
CONFIG_CHECKS: Mapping[str, Check] = {
    "message size": _message_size,
    "cleanup policy": _cleanup_policy,
    "retention": _retention,
}
