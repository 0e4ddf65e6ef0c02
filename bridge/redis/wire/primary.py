"""The one server that an epoch, or a command, talks to.

Mostly it is the one that the settings name. With Sentinel, or in a cluster, it is looked for before each epoch: a
finder names it, and it must say itself that it is a primary. Never is another one taken than the newest answer names:
an old primary that still answers may well believe to be one.

Guarantees: whoever holds `client` holds connections to one server alone, whatever happens: when the primary moves, the
client is another one. So no script of one epoch can reach another server, where the fence, replicated, would let it
pass. Until somebody notices, an old primary that is cut off can be worked on: see *Failover* in PROTOCOL.md.
"""

from contextlib import suppress
from dataclasses import replace
from typing import Protocol, cast

from redis.asyncio import Redis

from bridge.clock import Clock
from bridge.errors import NotConnected, Refused
from bridge.redis.wire.endpoint import Endpoint, conversation, no_primary
from bridge.redis.wire.sentinel import Address, Sentinels
from bridge.settings import Settings

WATCH_INTERVAL = 1.0
"""Seconds between looks at the role of the server, and at what the sentinels say."""
ROLE_TIMEOUT = 1.0
"""Seconds. A server that is frozen, and will be replaced soon, must not hold up the look for the next one."""


class Finder(Protocol):
    """Who knows which server is the primary."""

    async def primary(self) -> Address:
        """Where the primary is, by the newest answer. Raises NotConnected or Refused where there is none."""

    async def close(self) -> None:
        """Give the connections back."""


class Primary:
    """See the module. With a finder, `client` is of no use before `locate`."""

    def __init__(self, settings: Settings, finder: Finder | None = None, connections: int = 8) -> None:
        """`finder`: the sentinels of the settings, if none is given. `connections`: how many the client may open."""
        self._connections = connections
        self.endpoint = Endpoint.of(settings)
        self.client: Redis = self.endpoint.client(connections)
        self._finder = finder or sentinels_of(settings)
        """None: the settings name the server itself."""
        self._former: Redis | None = None

    async def locate(self) -> bool:
        """Find out which server is the primary now. Whether it is another one than before: then the client is new.

        Raises NotConnected or Refused; then all is as it was.
        """
        if self._finder is None:
            return False
        found = self._at(await self._finder.primary())
        if found == self.endpoint:
            await _require(self.client, found)
            return False
        client = found.client(self._connections)
        try:
            await _require(client, found)
        except BaseException:
            await client.aclose()
            raise
        former, self._former = self._former, self.client
        self.endpoint, self.client = found, client
        # The last one's connections may be in use yet, for as long as a command may take.
        if former is not None:
            await former.aclose()
        return True

    async def lost(self, clock: Clock) -> str:
        """Return when this server is the primary no more, with the reason.

        That a server does not answer is no reason: whoever needs it will notice.
        """
        while True:
            await clock.sleep(WATCH_INTERVAL)
            if other := await self.successor():
                return f"{self.endpoint.finder} names another primary: {other}"
            with suppress(NotConnected, Refused):
                role = await _role(self.client, self.endpoint)
                if role != "master":
                    return f"{self.endpoint.title} is no primary any more (role {role})"

    async def successor(self) -> Endpoint | None:
        """Another server that the newest answer names, and that is a primary: one stale answer proves nothing.

        None also where nobody can tell.
        """
        if self._finder is None:
            return None
        with suppress(NotConnected, Refused):
            named = self._at(await self._finder.primary())
            if named != self.endpoint and await self._is_primary(named):
                return named
        return None

    async def close(self) -> None:
        """Give the connections back."""
        await self.client.aclose()
        if self._former is not None:
            await self._former.aclose()
        if self._finder is not None:
            await self._finder.close()

    async def _is_primary(self, endpoint: Endpoint) -> bool:
        client = endpoint.client(1)
        try:
            return await _role(client, endpoint) == "master"
        finally:
            await client.aclose()

    def _at(self, address: Address) -> Endpoint:
        host, port = address
        return replace(self.endpoint, host=host, port=port)


async def _require(client: Redis, endpoint: Endpoint) -> None:
    role = await _role(client, endpoint)
    if role != "master":
        raise no_primary(endpoint, f" (role {role})")


async def _role(client: Redis, endpoint: Endpoint) -> str:
    """What a server says of itself. INFO, since the bridge needs that anyway: ROLE would be one more right."""
    async with conversation(endpoint, ROLE_TIMEOUT):
        info = cast("dict[str, object]", await client.info("replication"))
    return str(info.get("role", "unknown"))


def sentinels_of(settings: Settings) -> Sentinels | None:
    """The sentinels that `BRIDGE_REDIS_URL` names, if it does."""
    return Sentinels(settings) if settings.redis_address().sentinels else None
