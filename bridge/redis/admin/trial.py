"""What a user's service would do with Redis: set keys with a TTL. For the demo, in a Redis of its own."""

from collections.abc import Mapping

from bridge.redis.admin.inspector import Inspector
from bridge.redis.wire.conversation import conversation


async def set_expiring(inspector: Inspector, ttls_ms: Mapping[str, int]) -> None:
    """Set each key, with a TTL of that many milliseconds. Raises NotConnected or Refused."""
    pipeline = inspector.client.pipeline(transaction=False)
    for key, ttl_ms in ttls_ms.items():
        pipeline.set(key, "value", px=ttl_ms)
    async with conversation(inspector.endpoint):
        await pipeline.execute()
