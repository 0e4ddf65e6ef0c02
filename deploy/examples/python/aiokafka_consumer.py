"""Revokes shares whose keys have expired: Kafka, with aiokafka. Settings: see ../README.md."""

import asyncio
import os

from aiokafka import AIOKafkaConsumer
from shares import Shares


async def main() -> None:
    shares = Shares(os.environ.get("DATABASE", "shares.db"))
    async with AIOKafkaConsumer(
        os.environ.get("KAFKA_TOPIC", "redis.expired"),
        bootstrap_servers=os.environ.get("KAFKA_SERVERS", "127.0.0.1:9092"),
        group_id=os.environ.get("KAFKA_GROUP", "revoke-shares"),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    ) as records:
        async for record in records:
            if record.key.startswith(b"share:") or record.key == b"_gap":
                shares.handle(record.value)
            await records.commit()  # only now: what is not committed comes again


asyncio.run(main())
