"""What time it is at the brokers. Kafka has no request for that, but says it in a refusal.

A record whose timestamp is too far ahead is refused with the range of those that are taken, whose end is the broker's
time plus `message.timestamp.after.max.ms`. So one is sent that cannot be taken, where that is certain: where the topic
goes by the timestamps of its producers, and that limit is an ordinary one. Nothing is stored.
"""

import re
from collections.abc import Callable, Mapping

from aiokafka.errors import KafkaError
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from bridge.errors import NotConnected
from bridge.sinks.kafka.cluster import Cluster, explained
from bridge.sinks.kafka.records import EMPTY_BYTES, MAGIC
from bridge.sinks.kafka.topics import INVALID_TIMESTAMP

TIMESTAMP_TYPE, AFTER_MAX = "message.timestamp.type", "message.timestamp.after.max.ms"
YEAR_MS = 365 * 24 * 3_600_000
LIMIT_MS = 10 * YEAR_MS
"""A greater one is none."""
FAR_MS = 100 * YEAR_MS
"""How far ahead the record's timestamp is."""
_RANGE = re.compile(r"within \[-?\d+, (\d+)\]")


def most_ahead_ms(configs: Mapping[str, str]) -> int | None:
    """How far ahead of its broker's clock a record's timestamp may be; None where no limit is known, or it is none."""
    limit = configs.get(AFTER_MAX, "")
    if configs.get(TIMESTAMP_TYPE) != "CreateTime" or not limit.isdecimal() or int(limit) > LIMIT_MS:
        return None
    return int(limit)


async def clocks_ahead(cluster: Cluster, topic: str, limit_ms: int, now: Callable[[], float]) -> dict[str, float]:
    """By how many seconds brokers that lead a partition are ahead of us (`host:port` → seconds), as far as they say.

    `limit_ms`: see `most_ahead_ms`; `now`: this machine's time, in Unix seconds. Wrong by half a round trip at most.
    Raises NotConnected: no broker answers.
    """
    found: dict[str, float] = {}
    try:
        await cluster.refresh([topic])
        for broker, partition in cluster.leaders(topic).items():
            asked = now()
            code, words = await cluster.refusal(topic, partition, _record(int(asked * 1000) + FAR_MS))
            between = (asked + now()) / 2
            said = _RANGE.search(words)
            if code == INVALID_TIMESTAMP and said is not None:
                found[broker] = (int(said[1]) - limit_ms) / 1000 - between
    except KafkaError as error:
        raise NotConnected(f"Kafka does not answer: {explained(error)}") from None
    return found


def _record(timestamp_ms: int) -> bytes:
    builder = DefaultRecordBatchBuilder(
        MAGIC,
        0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=2 * EMPTY_BYTES,
    )
    builder.append(0, timestamp_ms, b"_check", b"", [])
    return bytes(builder.build())
