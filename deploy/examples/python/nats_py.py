"""Revokes shares whose keys have expired: JetStream, with nats-py. Settings: NATS_URL, DATABASE."""

import asyncio
import os

import nats
from nats.js.api import ConsumerConfig
from shares import Shares

SUBJECTS = ["expired.0.share", "expired.0._gap"]


async def main() -> None:
    shares = Shares(os.environ.get("DATABASE", "shares.db"))
    client = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    config = ConsumerConfig(durable_name="revoke-shares", filter_subjects=SUBJECTS)
    jetstream = client.jetstream()
    await jetstream.add_consumer("EXPIRY", config)
    messages = await jetstream.pull_subscribe_bind("revoke-shares", "EXPIRY")
    while True:
        try:
            batch = await messages.fetch(100, timeout=5)
        except TimeoutError:  # fetch raises a subclass of it, or it itself
            continue
        for message in batch:
            shares.handle(message.data)
            await message.ack()  # only now: what is not acked comes again


asyncio.run(main())
