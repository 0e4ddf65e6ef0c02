"""A key of the bridge's own that proves the whole way: Redis expires it, and notifies that. For the commands.

Guarantees: nothing else is changed, and the key is gone afterwards.
"""

import asyncio
import uuid

from bridge.redis.admin.inspector import Inspector
from bridge.redis.protocol.inbox import Inbox
from bridge.redis.protocol.notifications import channels
from bridge.redis.wire.conversation import conversation
from bridge.redis.wire.subscription import subscribe

TTL_MS = 100
PATIENCE = 2.0
"""Seconds to wait for its notification, past its deadline."""
POLL = 0.01


async def try_canary(inspector: Inspector) -> float | None:
    """Set a key of the bridge's own, let it expire, and listen: seconds from its deadline to its notification.

    None: none came in time. Raises NotConnected or Refused.
    """
    key, heard = inspector.names.canary + b":%b" % uuid.uuid4().hex.encode(), asyncio.Event()
    endpoint = inspector.endpoint
    channel = next(iter(channels(endpoint.db)))
    inbox, clock = Inbox(endpoint.limits), endpoint.clock
    session = await subscribe(endpoint, [channel], inbox, heard.set)
    try:
        async with conversation(endpoint):
            await inspector.client.set(key, "", px=TTL_MS)
        deadline = clock.monotonic() + TTL_MS / 1000
        while (channel, key) not in inbox:
            if clock.monotonic() > deadline + PATIENCE:
                return None
            heard.clear()
            async with conversation(endpoint):
                await inspector.client.exists(key)  # Redis expires a key that is read past its deadline
            await clock.wait(heard, POLL)
        return max(clock.monotonic() - deadline, 0.0)
    finally:
        session.end("it was only a try")
