"""A tracked connection: Redis reports on a subscription when a key that was read there is written (client caching).

Guarantees: that holds for all commands of one `Tracking`, from the first to the last. It has one connection. When that
is lost, it cannot be used any longer; it never continues on another connection that is not tracked.
"""

import re

from redis.exceptions import ConnectionError as RedisConnectionError

from bridge.redis.wire.commands import Commands
from bridge.redis.wire.endpoint import CLUSTER, Endpoint
from bridge.redis.wire.exchange import Exchange
from bridge.redis.wire.server import Server

_FIELDS = {"Redis": (7, 4), "Valkey": (9, 0)}
"""The first versions in which fields of hashes have deadlines."""
_UNDECLARED = {"Redis": (7, 4), "Valkey": (8, 0)}
"""The first versions in which a script's reads are tracked even if it does not declare the keys."""


class Tracking(Commands):
    """See the module. One command at a time."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._used = False

    async def _open(self) -> Exchange:
        if self._used:
            raise RedisConnectionError("the tracked connection was lost")
        self._used = True
        return await super()._open()


async def track(endpoint: Endpoint, listener: int) -> Tracking:
    """Open one. `listener`: the id of the subscription's connection.

    Raises NotConnected; or Refused if the server, or a proxy, does not support that, or not for this user.
    """
    tracking = Tracking(endpoint)
    try:
        await tracking.ask(b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", listener, b"OPTIN")
        # Older servers, and narrow rights, refuse it: then a read counts as a use of the key.
        await tracking.answers([(b"CLIENT", b"NO-TOUCH", b"ON")])
    except BaseException:
        tracking.close()
        raise
    return tracking


def said_of_itself(info: bytes) -> Server:
    """Product and version, from the answer to INFO."""
    fields = dict(line.partition(b":")[::2] for line in info.splitlines())
    valkey = fields.get(b"valkey_version")
    version = (valkey or fields.get(b"redis_version", b"0")).decode(errors="replace")
    return Server("Valkey" if valkey else "Redis", version, role="", run_id="")


def has_fields(server: Server) -> bool:
    """Whether fields of a hash may have deadlines there."""
    return _version(server) >= _FIELDS[server.product]


def tracks_undeclared(server: Server) -> bool:
    """Whether the server tracks what a script reads, and not only the keys that it declares."""
    return _version(server) >= _UNDECLARED[server.product]


def trackable(server: Server, endpoint: Endpoint) -> bool:
    """Whether values can be proven there: a script cannot declare keys of several slots."""
    return tracks_undeclared(server) or endpoint.finder != CLUSTER


def _version(server: Server) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", server.version)[:2])
