"""What `BRIDGE_KAFKA_DEDUPLICATION=transaction` needs: transactional ids, and a topic whose end can be read.

A producer is made and thrown away, of an id that no bridge uses. Nothing is sent.
"""

from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from bridge.clock import SystemClock
from bridge.commands.check.findings import Finding, Row, failed_with, failure, passed, warning
from bridge.commands.check.kafka.remedies import AGAIN
from bridge.commands.check.kafka.topic import AREA, Topic
from bridge.errors import ErrorKind, Unusable
from bridge.limits import KafkaLimits
from bridge.sinks.kafka.clocks import AFTER_MAX
from bridge.sinks.kafka.cluster import Cluster
from bridge.sinks.kafka.connect import connect, discard
from bridge.sinks.kafka.tail import Tail
from bridge.sinks.kafka.topics import BEFORE_MAX, CLEANUP, HOUR_MS
from bridge.sinks.kafka.transactional import TIMESTAMPS, unfit

NARROW_AFTER_MS = 60_000
"""Clocks may differ by as much for a while."""
NARROW_BEFORE_MS = 7 * 24 * HOUR_MS
"""An outage may last so long."""
NO_LIMIT_MS = 2**63 - 1
CLOCK, LIMITS = SystemClock(), KafkaLimits(request=5.0, start=10.0)


async def check_transactions(cluster: Cluster, topic: Topic, db: int) -> list[Row]:
    """Their rows, where the settings ask for transactions."""
    if topic.settings.kafka_deduplication != "transaction":
        return []
    rows = [Row(AREA, "transactions", await _ids(topic, db))]
    if topic.names.fixed is not None and topic.examined.exists:
        rows.append(Row(AREA, "end of the topic", await _end(cluster, topic, topic.names.fixed)))
        if BEFORE_MAX in topic.config and AFTER_MAX in topic.config:  # Kafka 3.6 and later
            rows.append(Row(AREA, "timestamps", timestamps(topic)))
    return rows


async def _ids(topic: Topic, db: int) -> Finding:
    name = f"{topic.settings.namespace}:{db}"
    try:
        producer = await connect(topic.settings, CLOCK, LIMITS, transactional_id=f"{name}:check")
    except Unusable as error:
        if error.kind is ErrorKind.DENIED:
            return failure(
                f"user {topic.tools.user} may not use transactional ids {name}:…", topic.tools.transactional()
            )
        return failed_with(error, "look at transaction.state.log.replication.factor and .min.isr of the brokers")
    await discard(producer, CLOCK, LIMITS)
    return passed(f"user {topic.tools.user} may use transactional ids {name}:…")


async def _end(cluster: Cluster, topic: Topic, name: str) -> Finding:
    try:
        configs = (await cluster.describe([name], (TIMESTAMPS, CLEANUP))).get(name, {})
        if why := unfit(configs):
            fixed = {TIMESTAMPS: "CreateTime"} if TIMESTAMPS in why else {CLEANUP: "delete"}
            return failure(f"{name}: {why}", topic.tools.configure(*next(iter(fixed.items()))))
        await cluster.refresh([name])
        await Tail(topic.settings, CLOCK, LIMITS).ids(name, cluster.partitions(name), least=1)
    except TopicAuthorizationFailedError:
        return failure(f"user {topic.tools.user} may not read {name}", topic.tools.allow("Read"))
    except (KafkaError, Unusable) as error:
        return warning(f"cannot be read: {type(error).__name__}", AGAIN)
    return passed(f"user {topic.tools.user} may read {name}, whose records have the time of their claims")


def timestamps(topic: Topic) -> Finding:
    """Whether records can have the times of their claims."""
    before, after = int(topic.config[BEFORE_MAX]), int(topic.config[AFTER_MAX])
    if after < NARROW_AFTER_MS:
        found = f"{AFTER_MAX}={after}: claims wait, or become dead letters, where Redis's clock is further ahead"
        return warning(found, topic.tools.configure(AFTER_MAX, HOUR_MS))
    if before < NARROW_BEFORE_MS:
        found = f"{BEFORE_MAX}={before}: claims that have waited for long get the time of sending"
        return warning(found, topic.tools.configure(BEFORE_MAX, NO_LIMIT_MS))
    return passed("records have the times of their claims")
