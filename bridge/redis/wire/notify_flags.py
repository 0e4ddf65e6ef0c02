"""The notifications that the bridge needs from Redis: switched on before an epoch, and watched during it."""

from typing import NoReturn, cast

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, ResponseError

from bridge.endings import Ending
from bridge.errors import Refused
from bridge.redis.protocol.endings import EpochEnded
from bridge.redis.protocol.notifications import FIELD_FLAGS, NAMING_FLAG, NEEDED_FLAGS, missing_flags
from bridge.redis.wire.conversation import conversation
from bridge.redis.wire.endpoint import Endpoint
from bridge.settings import Settings
from bridge.telemetry.shard import ShardTelemetry

FLAGS = "notify-keyspace-events"


async def switch_on(
    client: Redis, endpoint: Endpoint, telemetry: ShardTelemetry, *, configure: bool, naming: bool = False
) -> None:
    """Raise unless this server notifies what is needed. With `configure`, switch it on; Redis may refuse that.

    `naming`: the server can name fields of hashes. That helps, but is not needed.
    """
    flags = await notification_flags(client, endpoint)
    needed = least_flags(endpoint.settings)
    wanted = needed + (NAMING_FLAG if naming and configure and endpoint.settings.fields else "")
    if flags is None:
        telemetry.flags_unreadable()
    elif missing_flags(flags, wanted):
        if not configure:
            raise _missing(endpoint, flags, needed, "BRIDGE_REDIS_NOTIFICATIONS=verify")
        telemetry.flags_configured(flags, await _add(client, endpoint, flags, wanted))


async def watch(client: Redis, endpoint: Endpoint, needed: str = NEEDED_FLAGS) -> NoReturn:
    """End the epoch when an operator takes away a notification flag that it needs."""
    while True:
        await endpoint.clock.tick(endpoint.limits.flags_check)
        flags = await notification_flags(client, endpoint)
        if flags is not None and (missing := missing_flags(flags, needed)):
            raise EpochEnded(Ending.FLAGS_CHANGED, f"{FLAGS} was changed to '{flags}', without {missing}")


def least_flags(settings: Settings) -> str:
    """The flags without which the bridge cannot work."""
    return FIELD_FLAGS if settings.fields else NEEDED_FLAGS


async def needed_flags(client: Redis, endpoint: Endpoint) -> str:
    """The flags that an epoch will need. An optional flag is needed if it is already set."""
    needed = least_flags(endpoint.settings)
    if not endpoint.settings.fields:
        return needed
    return needed + (NAMING_FLAG if NAMING_FLAG in (await notification_flags(client, endpoint) or "") else "")


async def notification_flags(client: Redis, endpoint: Endpoint) -> str | None:
    """The value of `notify-keyspace-events`; None where we may not read it (managed Redis, a narrow ACL)."""
    async with conversation(endpoint):
        try:
            found = cast("dict[bytes, bytes]", await client.config_get(FLAGS))
        except AuthenticationError:
            raise
        except ResponseError:
            return None
    values = {_decoded(name): _decoded(value) for name, value in found.items()}
    return values.get(FLAGS)


async def _add(client: Redis, endpoint: Endpoint, flags: str, needed: str) -> str:
    """Set the missing flags, keeping those that are set. The new value. Raises Refused where CONFIG SET is refused."""
    wanted = flags + missing_flags(flags, needed)
    async with conversation(endpoint):
        try:
            await client.config_set(FLAGS, wanted)
        except AuthenticationError:
            raise
        except ResponseError as error:
            raise _missing(endpoint, flags, needed, f"CONFIG SET is refused: {error}") from error
    return wanted


def _missing(endpoint: Endpoint, flags: str, needed: str, why: str) -> Refused:
    """What to say if notifications are off, and the bridge does not switch them on."""
    return Refused(
        f"Redis at {endpoint}: {FLAGS} is '{flags}' and lacks {missing_flags(flags, needed)} ({why})",
        f"set it to '{flags + missing_flags(flags, needed)}' there (the bridge needs {needed})",
    )


def _decoded(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
