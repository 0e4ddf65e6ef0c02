"""What Kafka must be for the bridge: a connection, then the topic (`topic.py`).

Nothing is changed, but that with `publish` one message is published, to a topic that exists.
"""

from bridge.clock import SystemClock
from bridge.commands.check.findings import Finding, Row, failed_with, failure, passed
from bridge.commands.check.kafka.clocks import check_clocks
from bridge.commands.check.kafka.publish import missing, try_to_publish
from bridge.commands.check.kafka.remedies import AGAIN, Tools
from bridge.commands.check.kafka.topic import AREA, Topic, judge
from bridge.commands.check.kafka.transactions import check_transactions
from bridge.commands.check.test_message import CHECK
from bridge.contracts import Message
from bridge.errors import ErrorKind, NotConnected, Refused, Unusable
from bridge.limits import KafkaLimits
from bridge.settings import Settings
from bridge.sinks.kafka.cluster import Cluster
from bridge.sinks.kafka.connect import connect, discard, require_compression
from bridge.sinks.kafka.inspection import examine
from bridge.sinks.kafka.names import TopicTemplate
from bridge.sinks.kafka.topics import UNKNOWN_TOPIC

CLOCK, LIMITS = SystemClock(), KafkaLimits(request=5.0)
BROKERS_SHOWN = 5
SAMPLE_KEY = b"expiry-bridge"
"""Whose topic is tried where it depends on the key. No user's key, so that its topic may be talked about."""


async def check_kafka(settings: Settings, db: int, trial: Message | None) -> list[Row]:
    """All rows about Kafka, up to the first without which the others make no sense. Raises ConfigurationError.

    `trial` is published, if there is one.
    """
    require_compression(settings)
    names = TopicTemplate(settings.kafka_topic, db)
    tools = Tools(settings, names)
    try:
        producer = await connect(settings, CLOCK, LIMITS)
    except (NotConnected, Refused) as error:
        return [_not_connected(error, tools)]
    try:
        cluster = Cluster(producer.client, CLOCK, LIMITS)
        rows = [Row(AREA, "connection", _connection(cluster, settings, tools))]
        try:
            examined = await examine(cluster, names.fixed or names.of(SAMPLE_KEY), settings)
        except NotConnected as error:
            return [*rows, Row(AREA, "topic", failed_with(error, AGAIN))]
        topic = Topic(examined, settings, names, tools, len(cluster.brokers))
        rows += [*judge(topic), *await check_transactions(cluster, topic, db)]
        if (finding := await check_clocks(cluster, topic)) is not None:
            rows.append(Row(AREA, "clocks", finding))
        if trial is not None:
            rows.append(Row(AREA, CHECK, await _try(cluster, topic, trial)))
        return rows
    finally:
        await discard(producer, CLOCK, LIMITS)


async def _try(cluster: Cluster, topic: Topic, trial: Message) -> Finding:
    name = topic.names.of_message(trial)
    if topic.names.fixed is not None and topic.examined.found.code == UNKNOWN_TOPIC:
        return missing(name)
    return await try_to_publish(cluster, name, topic.settings.kafka_compression, topic.tools, trial)


def _not_connected(error: Unusable, tools: Tools) -> Row:
    if error.kind is ErrorKind.DENIED:
        return Row(AREA, "right to write", failure(error.found, tools.allow("Write")))
    remedy = "start Kafka there, or point BRIDGE_KAFKA_BOOTSTRAP_SERVERS at where it is"
    return Row(AREA, "connection", failed_with(error, remedy))


def _connection(cluster: Cluster, settings: Settings, tools: Tools) -> Finding:
    brokers = cluster.brokers
    more = f" and {len(brokers) - BROKERS_SHOWN} more" if len(brokers) > BROKERS_SHOWN else ""
    login = [settings.kafka_security_protocol, settings.kafka_sasl_mechanism or "", f"as user {tools.user}"]
    count = f"{len(brokers)} broker{'s' * (len(brokers) != 1)}"
    return passed(f"{count}: {', '.join(brokers[:BROKERS_SHOWN])}{more}; {', '.join(filter(None, login))}")
