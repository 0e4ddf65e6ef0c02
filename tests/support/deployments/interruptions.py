"""What interrupts the notifications."""

from tests.support.deployments.scene import LASTING_MS, Scene
from tests.support.proxy import TO_CLIENT, is_subscriber
from tests.support.servers import PATIENCE, wait_until

FLAGS = "notify-keyspace-events"
NEEDED = "Egxe"


async def overflow(deployment: Scene) -> None:
    """Make Redis drop the subscriber, because it takes too little."""
    redis, noise = deployment.redis, "noise" * 10_000
    await redis.config_set("client-output-buffer-limit", "pubsub 64kb 0 0")
    held = deployment.redis_link.stall(TO_CLIENT, is_subscriber)
    await redis.set(noise, "")

    async def is_dropped() -> bool:
        async with redis.pipeline(transaction=False) as pipeline:
            for _ in range(50):  # until the kernel's buffers are full as well
                pipeline.pexpire(noise, LASTING_MS)
            await pipeline.execute()
        return not await redis.client_list(_type="pubsub")

    await wait_until(is_dropped, "Redis dropping the subscriber", PATIENCE)
    held.release()
