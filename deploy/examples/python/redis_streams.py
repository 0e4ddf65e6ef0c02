"""Revokes shares whose keys have expired: a Redis Stream, with redis-py. Settings: see ../README.md.

A consumer group shares the entries among its members. An entry that was handed out and never acked, as its consumer
died, is claimed by another one after a minute.
"""

import asyncio
import contextlib
import os
import socket

from redis.asyncio import Redis
from redis.exceptions import ResponseError
from shares import Shares

STREAM, GROUP = os.environ.get("REDIS_STREAM", "expired"), "revoke-shares"
NAME = os.environ.get("CONSUMER", socket.gethostname())
"""Of its own for each consumer that runs at the same time, and the same after a restart."""
LEFT_MS = int(os.environ.get("LEFT_MS", "60000"))


async def main() -> None:
    shares = Shares(os.environ.get("DATABASE", "shares.db"))
    async with Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")) as client:
        with contextlib.suppress(ResponseError):  # the group is there
            await client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        handled = "0"  # first what this consumer had before it was killed, then what is new
        while True:
            _, left, *_ = await client.xautoclaim(STREAM, GROUP, NAME, LEFT_MS, count=100)
            read = await client.xreadgroup(GROUP, NAME, {STREAM: handled}, count=100, block=5000)
            new = read[0][1] if read else []
            if not new:
                handled = ">"
            for entry_id, fields in [*left, *new]:
                if fields and (fields[b"key"].startswith(b"share:") or fields[b"key"] == b"_gap"):
                    shares.handle(fields[b"body"])
                await client.xack(STREAM, GROUP, entry_id)  # only now: what is not acked comes again


asyncio.run(main())
