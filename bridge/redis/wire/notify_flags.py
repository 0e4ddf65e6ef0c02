"""That Redis notifies what the bridge needs: switched on before an epoch, and watched in it."""

from typing import NoReturn

from redis.asyncio import Redis

from bridge.clock import Clock
from bridge.endings import Ending
from bridge.redis.protocol.endings import EpochEnded
from bridge.redis.protocol.notifications import missing_flags
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.server import add_flags, flags_missing, notification_flags
from bridge.telemetry.shard import ShardTelemetry

FLAGS_CHECK = 5.0
"""Seconds between looks at notify-keyspace-events, which somebody may have changed."""


async def switch_on(client: Redis, endpoint: Endpoint, telemetry: ShardTelemetry, *, configure: bool) -> None:
    """Raise unless this server notifies what is needed; with `configure`, have it do so, which may be refused."""
    flags = await notification_flags(client, endpoint)
    if flags is None:
        telemetry.flags_unreadable()
    elif missing_flags(flags):
        if not configure:
            raise flags_missing(endpoint, flags, "BRIDGE_REDIS_NOTIFICATIONS=verify")
        telemetry.flags_configured(flags, await add_flags(client, endpoint, flags))


async def watch(client: Redis, endpoint: Endpoint, clock: Clock) -> NoReturn:
    """End the epoch when somebody takes away a notification flag."""
    while True:
        await clock.sleep(FLAGS_CHECK)
        flags = await notification_flags(client, endpoint)
        if flags is not None and (missing := missing_flags(flags)):
            raise EpochEnded(
                Ending.FLAGS_CHANGED, f"notify-keyspace-events was changed to '{flags}', without {missing}"
            )
