"""That Redis notifies what the bridge needs: switched on before an epoch, and watched in it."""

from typing import NoReturn, cast

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, ResponseError

from bridge.endings import Ending
from bridge.errors import Refused
from bridge.redis.protocol.endings import EpochEnded
from bridge.redis.protocol.notifications import NEEDED_FLAGS, missing_flags
from bridge.redis.wire.conversation import conversation
from bridge.redis.wire.endpoint import Endpoint
from bridge.telemetry.shard import ShardTelemetry

FLAGS = "notify-keyspace-events"


async def switch_on(client: Redis, endpoint: Endpoint, telemetry: ShardTelemetry, *, configure: bool) -> None:
    """Raise unless this server notifies what is needed; with `configure`, have it do so, which may be refused."""
    flags = await notification_flags(client, endpoint)
    if flags is None:
        telemetry.flags_unreadable()
    elif missing_flags(flags):
        if not configure:
            raise _missing(endpoint, flags, "BRIDGE_REDIS_NOTIFICATIONS=verify")
        telemetry.flags_configured(flags, await _add(client, endpoint, flags))


async def watch(client: Redis, endpoint: Endpoint) -> NoReturn:
    """End the epoch when an operator takes away a notification flag."""
    while True:
        await endpoint.clock.sleep(endpoint.limits.flags_check)
        flags = await notification_flags(client, endpoint)
        if flags is not None and (missing := missing_flags(flags)):
            raise EpochEnded(Ending.FLAGS_CHANGED, f"{FLAGS} was changed to '{flags}', without {missing}")


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


async def _add(client: Redis, endpoint: Endpoint, flags: str) -> str:
    """Set the missing flags, keeping those that are set. The new value. Raises Refused where CONFIG SET is refused."""
    wanted = flags + missing_flags(flags)
    async with conversation(endpoint):
        try:
            await client.config_set(FLAGS, wanted)
        except AuthenticationError:
            raise
        except ResponseError as error:
            raise _missing(endpoint, flags, f"CONFIG SET is refused: {error}") from error
    return wanted


def _missing(endpoint: Endpoint, flags: str, why: str) -> Refused:
    """What to say where notifications are not switched on, and the bridge does not switch them on."""
    return Refused(
        f"Redis at {endpoint}: {FLAGS} is '{flags}' and lacks {missing_flags(flags)} ({why})",
        f"set it to '{flags + missing_flags(flags)}' there (the bridge needs {NEEDED_FLAGS})",
    )


def _decoded(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
