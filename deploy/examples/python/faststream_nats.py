"""Revokes shares whose keys have expired: JetStream, with FastStream. Settings: NATS_URL, DATABASE."""

import asyncio
import os

from faststream import AckPolicy, FastStream
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from nats.js.api import ConsumerConfig
from shares import Shares

shares = Shares(os.environ.get("DATABASE", "shares.db"))
broker = NatsBroker(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))


@broker.subscriber(
    stream=JStream("EXPIRY", declare=False),  # the bridge has made it
    durable="revoke-shares",
    config=ConsumerConfig(filter_subjects=["expired.0.share", "expired.0._gap"]),
    pull_sub=PullSub(batch_size=100),
    ack_policy=AckPolicy.NACK_ON_ERROR,  # acked when the function has returned
)
async def revoke(message: NatsMessage) -> None:
    shares.handle(message.body)


asyncio.run(FastStream(broker).run())
