"""A test publish to Kafka: one message that no consumer has to do anything about (`trial`)."""

from bridge.cloudevents import CHECK_TYPE
from bridge.commands.check.findings import Finding, failed_with, failure, passed, warning
from bridge.commands.check.kafka.remedies import AGAIN, MEGABYTE, Tools
from bridge.contracts import Message
from bridge.errors import NotConnected
from bridge.sinks.kafka.cluster import Cluster, words
from bridge.sinks.kafka.inspection import store
from bridge.sinks.kafka.topics import (
    DENIED,
    FEW_IN_SYNC,
    FEWER_IN_SYNC,
    INVALID_TIMESTAMP,
    LEADER_NOT_AVAILABLE,
    MAX_MESSAGE,
    NO_ERROR,
    NOT_LEADER,
    TOO_LARGE,
    UNKNOWN_TOPIC,
)


async def try_to_publish(cluster: Cluster, topic: str, compression: str, tools: Tools, message: Message) -> Finding:
    """Publish it where the bridge would publish a gap record; once, whereas the bridge tries again."""
    try:
        partition, code = await store(cluster, topic, message, compression)
    except NotConnected as error:
        return failed_with(error, AGAIN)
    if code == NO_ERROR:
        key = message.key.decode()
        return passed(f"in partition {partition} of {topic}, under the key {key}; its type is {CHECK_TYPE}")
    if code == UNKNOWN_TOPIC:
        return missing(topic)
    remedies = {
        DENIED: tools.allow("Write"),
        TOO_LARGE: tools.configure(MAX_MESSAGE, MEGABYTE),
        FEW_IN_SYNC: f"start the brokers that are missing: {tools.show('--under-min-isr-partitions')}",
        FEWER_IN_SYNC: f"start the brokers that are missing: {tools.show('--under-min-isr-partitions')}",
        LEADER_NOT_AVAILABLE: f"start the brokers that have it: {tools.show('--unavailable-partitions')}",
        NOT_LEADER: AGAIN,
        INVALID_TIMESTAMP: "synchronise this machine's clock with the brokers' (NTP): they refuse what is too far off",
    }
    remedy = remedies.get(code, "look into the log of the Kafka brokers")
    return failure(f"partition {partition} of {topic} refuses it ({words(code)})", remedy)


def missing(topic: str) -> Finding:
    """Nothing was tried."""
    again = "check again when it does: the bridge creates it when it starts, if it may"
    return warning(f"not tried: {topic} does not exist", again)
