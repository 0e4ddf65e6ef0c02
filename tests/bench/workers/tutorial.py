"""The tutorial's way: psubscribe with redis-py, and an awaited JetStream publish for each notification."""

import asyncio
import time

import nats
from nats.js.api import StorageType, StreamConfig
from redis.asyncio import Redis

from tests.bench.spoken import READY, say, told
from tests.bench.stage import STREAM


async def main(redis_url: str, nats_url: str, count: int, deadline_ms: int) -> None:
    """Publish until so many have expired; say what it took since their deadline."""
    client = await nats.connect(nats_url)
    jetstream = client.jetstream()
    await jetstream.add_stream(
        StreamConfig(name=STREAM, subjects=["expired.0.*"], storage=StorageType.FILE, duplicate_window=600)
    )
    redis = Redis.from_url(redis_url, protocol=2)
    notifications = redis.pubsub()
    await notifications.psubscribe("__keyevent@*__:expired")
    say(READY)
    done, used = 0, 0.0
    async for message in notifications.listen():
        if message["type"] != "pmessage":
            continue
        used = used or time.process_time()
        key = message["data"].decode()
        await jetstream.publish(f"expired.0.{key.split(':')[0]}", key.encode(), headers={"Nats-Msg-Id": key})
        done += 1
        if done == count:
            break
    seconds, cpu = time.time() - deadline_ms / 1000, time.process_time() - used
    await notifications.aclose()  # type: ignore[no-untyped-call]
    await redis.aclose()
    await client.close()
    say({"events": count, "seconds": seconds, "rate_per_s": count / seconds, "client_cpu_us": cpu / count * 1e6})


if __name__ == "__main__":
    asyncio.run(main(**told()))
