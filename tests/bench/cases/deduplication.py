"""What exactly once costs: each way to keep a message from being stored twice, beside the usual one."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from tests.bench.burst import burst, missing, recorded, retried
from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.chart import Chart, cost_of
from tests.bench.kafka import KafkaTopics
from tests.bench.stage import SUBJECT, staged, staged_with_nats
from tests.support.brokers.kafka import KafkaServer

KEYS: Final = 50_000
REDIS_STREAM: Final = "expired"
USUAL: Final = {"window": "window", "subject": "window", "redis": "window", "none": "none", "transaction": "none"}
"""Each way, and which one it is compared with."""


async def on_nats(mode: str, count: int) -> Figures:
    """By the stream's duplicate window, or by a subject for each message."""
    async with staged_with_nats() as stage:
        settings = {"nats_deduplication": mode} if mode != "window" else {}
        async with recorded(stage, count, settings=settings) as (bridge, deadline_ms):
            figures = await burst(stage, bridge, count, deadline_ms, broker=stage.nats.pid)
        missing(await stage.stored(f"{SUBJECT}.>" if mode == "subject" else SUBJECT), count)
        return figures


async def on_kafka(server: KafkaServer, topics: KafkaTopics, mode: str, count: int) -> Figures:
    """As usual, or in transactions."""
    topic = next(topics)
    settings = {"sink": "kafka", "kafka_bootstrap_servers": server.address, "kafka_topic": topic}
    settings |= {"kafka_deduplication": mode} if mode != "none" else {}
    async with staged() as stage, recorded(stage, count, settings=settings) as (bridge, deadline_ms):
        figures = await burst(stage, bridge, count, deadline_ms, broker=server.pid)
        missing(await topics.stored(topic), count)
        return figures


async def on_redis(count: int) -> Figures:
    """Into a stream of the same Redis."""
    async with staged() as stage, recorded(stage, count, settings={"sink": "redis"}) as (bridge, deadline_ms):
        figures = await burst(stage, bridge, count, deadline_ms)
        missing(await stage.redis.xlen(REDIS_STREAM), count)
        return figures


class Deduplication:
    """See `Case`."""

    name = "deduplication"
    title = "Exactly once"
    question = (
        f"{KEYS:,} recorded keys expire at once: JetStream, by its duplicate window or by a subject for each message;"
        " Kafka, without or with transactions; a stream of the same Redis."
    )
    runs = 2
    seconds = 60.0

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        """See `Case`."""
        count = round(KEYS * scale)
        with KafkaServer() as server:
            topics = KafkaTopics(server)
            yield {
                **{mode: partial(retried, partial(on_nats, mode, count)) for mode in ("window", "subject")},
                "redis": partial(retried, partial(on_redis, count)),
                **{
                    mode: partial(retried, partial(on_kafka, server, topics, mode, count))
                    for mode in ("none", "transaction")
                },
            }

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        """See `Case`."""
        verdicts = []
        for mode, usual in USUAL.items():
            found, compared = medians[mode], medians[usual]
            verdicts.append(Verdict(f"{mode}: the bridge", found["bridge_cpu_us"], "µs"))
            if mode != usual:
                ratio = found["bridge_cpu_us"] / compared["bridge_cpu_us"]
                verdicts += [
                    Verdict(f"{mode} ÷ {usual}: processor time of the bridge", ratio),
                    Verdict(f"{mode} ÷ {usual}: rate", found["rate_per_s"] / compared["rate_per_s"]),
                ]
        return verdicts

    def charts(self, medians: Medians) -> Sequence[Chart]:
        """See `Case`."""
        bars = [cost_of(name, figures) for name, figures in medians.items()]
        return [Chart(self.name, "Exactly once: processor time of one expiration", "µs", bars)]
