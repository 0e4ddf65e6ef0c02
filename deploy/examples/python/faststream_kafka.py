"""Revokes shares whose keys have expired: Kafka, with FastStream. Settings: see ../README.md."""

import asyncio
import os

from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker, KafkaMessage
from shares import Shares

shares = Shares(os.environ.get("DATABASE", "shares.db"))
broker = KafkaBroker(os.environ.get("KAFKA_SERVERS", "127.0.0.1:9092"))


@broker.subscriber(
    os.environ.get("KAFKA_TOPIC", "redis.expired"),
    group_id=os.environ.get("KAFKA_GROUP", "revoke-shares"),
    auto_offset_reset="earliest",
    ack_policy=AckPolicy.NACK_ON_ERROR,  # committed when the function has returned
)
async def revoke(message: KafkaMessage) -> None:
    if message.raw_message.key.startswith(b"share:") or message.raw_message.key == b"_gap":
        shares.handle(message.body)


asyncio.run(FastStream(broker).run())
