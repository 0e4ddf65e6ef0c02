"""Case 2: how many expirations a second reach Kafka, beside its own limit and Redis's."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from tests.bench.burst import burst, missing, recorded, retried
from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.chart import Bar, Chart, cost_of
from tests.bench.kafka import PARTITIONS, KafkaTopics
from tests.bench.stage import staged
from tests.bench.usage import Usage
from tests.bench.worker import Worker
from tests.support.brokers.kafka import KafkaServer

KEYS: Final = 100_000
WARM_UP_KEYS: Final = 30_000
"""For the broker's JVM to compile what is hot."""


async def bridged(server: KafkaServer, topics: KafkaTopics, count: int) -> Figures:
    """The bridge: recorded keys, Kafka."""
    topic = next(topics)
    settings = {"sink": "kafka", "kafka_bootstrap_servers": server.address, "kafka_topic": topic}
    async with staged() as stage, recorded(stage, count, settings=settings) as (bridge, deadline_ms):
        figures = await burst(stage, bridge, count, deadline_ms, broker=server.pid)
        records_of_gaps = round(await bridge.metric("bridge_gaps_total"))
        missing(await topics.stored(topic) - records_of_gaps, count)
        return figures


async def published(server: KafkaServer, topics: KafkaTopics, count: int) -> Figures:
    """The limit: records that are ready, nothing but Kafka."""
    topic = await topics.created()
    arguments: dict[str, str | float] = {"servers": server.address, "topic": topic, "partitions": PARTITIONS}
    usage = Usage.begin(broker=server.pid)
    with Worker("kafka_limit", **arguments, count=count) as worker:
        figures = await worker.found()
    missing(await topics.stored(topic), count)
    return {**figures, **usage.per_event(count)}


async def written(count: int) -> Figures:
    """The bridge without a broker: its standard output goes nowhere."""
    async with staged() as stage, recorded(stage, count, settings={"sink": "stdout"}) as (bridge, deadline_ms):
        return await burst(stage, bridge, count, deadline_ms)


class ThroughputKafka:
    """See `Case`."""

    name = "throughput-kafka"
    title = "Throughput, Kafka"
    question = (
        f"{KEYS:,} recorded keys expire at once: from their deadline to the last ack and settle, one bridge process."
        " Redis's limit is what its processor time for them allows on a core of its own."
    )
    runs = 3
    seconds = 72.0

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`."""
        count = round(KEYS * scale)
        with KafkaServer() as server:
            topics = KafkaTopics(server)
            await published(server, topics, round(WARM_UP_KEYS * min(scale, 1.0)))
            yield {
                "bridge": partial(retried, partial(bridged, server, topics, count)),
                "limit": partial(published, server, topics, count),
                "stdout": partial(retried, partial(written, count)),
            }

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`."""
        bridge, limit, stdout = (medians[name] for name in ("bridge", "limit", "stdout"))
        rate, of_kafka, of_redis = bridge["rate_per_s"], limit["rate_per_s"], _allowed_by_redis(bridge)
        return [
            Verdict("expirations", rate, "/s"),
            Verdict("÷ aiokafka's batches alone", rate / of_kafka),
            Verdict("÷ Redis's limit", rate / of_redis),
            Verdict(
                f"÷ the lower limit ({'Redis' if of_redis < of_kafka else 'Kafka'})",
                rate / min(of_kafka, of_redis),
                at_least=0.5,
            ),
            Verdict("÷ the bridge without a broker", rate / stdout["rate_per_s"]),
        ]

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`."""
        names = {"limit": "aiokafka's batches alone", "stdout": "bridge without a broker", "bridge": "bridge"}
        rates = [Bar(said, {"bridge": medians[name]["rate_per_s"]}) for name, said in names.items()]
        allowed = Bar("what Redis allows", {"redis": _allowed_by_redis(medians["bridge"])})
        return [
            Chart("throughput-kafka", f"{self.title}: expirations stored", "/s", [rates[0], allowed, *rates[1:]]),
            Chart(
                "throughput-kafka-cost",
                f"{self.title}: processor time of one expiration",
                "µs",
                [cost_of(said, medians[name]) for name, said in names.items()],
            ),
        ]


def _allowed_by_redis(figures: Figures) -> float:
    return 1e6 / figures["redis_cpu_us"]
