"""The limit on Kafka: aiokafka's batches, filled and sent, and nothing else.

As many records, of the same size and with the same headers, as the bridge publishes, to as many partitions and as
safely (idempotent, acked by all); ready before the clock starts.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from tests.bench.messages import BODY, KEY_BYTES, kafka_headers
from tests.bench.spoken import say, told

BATCH_BYTES: Final = 256 * 1024
"""As the bridge's: more gains nothing."""


async def main(servers: str, topic: str, partitions: int, count: int) -> None:
    """Publish, and say what it took."""
    producer = AIOKafkaProducer(
        bootstrap_servers=servers, enable_idempotence=True, acks="all", max_batch_size=BATCH_BYTES
    )
    await producer.start()
    shares = [[kafka_headers(number) for number in range(first, count, partitions)] for first in range(partitions)]
    begun, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(send(producer, topic, partition, share) for partition, share in enumerate(shares)))
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    await producer.stop()
    say({"events": count, "seconds": seconds, "rate_per_s": count / seconds, "client_cpu_us": cpu / count * 1e6})


async def send(producer: Any, topic: str, partition: int, share: Sequence[Any]) -> None:  # noqa: ANN401 - the library has no types
    """All records of one partition, a batch while the one before is on its way."""
    batch, sent = producer.create_batch(), None
    for headers in share:
        while batch.append(timestamp=None, key=KEY_BYTES, value=BODY, headers=headers) is None:
            following = await producer.send_batch(batch, topic, partition=partition)
            if sent is not None:
                await sent
            batch, sent = producer.create_batch(), following
    for answer in (sent, await producer.send_batch(batch, topic, partition=partition)):
        if answer is not None:
            await answer


if __name__ == "__main__":
    asyncio.run(main(**told()))
