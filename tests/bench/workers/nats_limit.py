"""The limit: nats-py on an inbox of its own, with a window, and nothing else.

As many messages, of the same size and with the same headers, as the bridge publishes; ready before the clock starts.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import nats
from nats.aio.msg import Msg
from nats.js.api import StorageType, StreamConfig

from tests.bench.messages import BODY, headers
from tests.bench.spoken import say, told
from tests.bench.stage import STREAM, SUBJECT

WINDOW: Final = 4_000
"""Messages without an ack: more gains nothing."""
TURN: Final = 250
"""Messages between looks at the acks."""
PAUSE_SECONDS: Final = 0.0005


async def until(condition: Callable[[], bool]) -> None:
    """Return when it holds. It is looked at again and again: an event set for each ack would cost more."""
    while not condition():  # noqa: ASYNC110 - see above
        await asyncio.sleep(PAUSE_SECONDS)


async def main(url: str, count: int) -> None:
    """Publish, and say what it took."""
    client = await nats.connect(url, skip_subject_validation=True)
    await client.jetstream().add_stream(
        StreamConfig(name=STREAM, subjects=["expired.0.*"], storage=StorageType.FILE, duplicate_window=600)
    )
    inbox = client.new_inbox()
    acked = failed = 0

    async def on_ack(ack: Msg) -> None:
        nonlocal acked, failed
        acked += 1
        failed += b'"error"' in ack.data

    await client.subscribe(inbox + ".*", cb=on_ack, pending_msgs_limit=-1, pending_bytes_limit=-1)
    messages = [(f"{inbox}.{number}", headers(number)) for number in range(count)]
    publish = client.publish
    begun, used = time.perf_counter(), time.process_time()
    for number, (reply, head) in enumerate(messages):
        await publish(SUBJECT, BODY, reply, head)
        if not number % TURN:
            await asyncio.sleep(0)
            await until(lambda: number - acked <= WINDOW)  # noqa: B023 - it is called here
    await until(lambda: acked == count)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    await client.close()
    if failed:
        raise RuntimeError(f"{failed} messages were not stored")
    say({"events": count, "seconds": seconds, "rate_per_s": count / seconds, "client_cpu_us": cpu / count * 1e6})


if __name__ == "__main__":
    asyncio.run(main(**told()))
