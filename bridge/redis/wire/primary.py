"""The one server that an epoch, or a command, talks to.

Usually it is the one that the settings name. With Sentinel, or in a cluster, it is looked up before each epoch: a
finder names it, and the server must itself say that it is a primary. Only the server of the newest answer is used,
because an old primary that still answers may believe that it is one.

Guarantees: all connections of `client` are to one single server. When the primary moves, there is another client. If
another server answers at the same address, connections to it are refused until the next `locate` (`binding.py`). So no
script of one epoch can reach another server, where the replicated fence would let it pass. An old primary that is cut
off may stay in use until that is noticed: see *Failover* in PROTOCOL.md.
"""

import asyncio
from contextlib import suppress
from typing import Protocol, cast

from redis.asyncio import Redis

from bridge.errors import NotConnected, Refused
from bridge.redis.wire.commands import Commands
from bridge.redis.wire.conversation import conversation
from bridge.redis.wire.endpoint import Address, Endpoint
from bridge.redis.wire.errors import is_replica
from bridge.redis.wire.sentinel import Sentinels
from bridge.tasks import end


class Finder(Protocol):
    """Something that knows which server is the primary."""

    async def primary(self) -> Address:
        """Where the primary is, by the newest answer. Raises NotConnected or Refused if there is none."""

    async def news(self, seconds: float) -> None:
        """Return after that many seconds, or as soon as the answer may have changed."""

    async def close(self) -> None:
        """Give the connections back."""


class Primary:
    """See the module. With a finder, `client` cannot be used before `locate`."""

    def __init__(self, endpoint: Endpoint, finder: Finder | None = None, connections: int = 8) -> None:
        """`finder`: the sentinels of the settings, if none is given. `connections`: how many the client may open."""
        self._connections = connections
        self.endpoint = endpoint
        self.client: Redis = endpoint.client(connections)
        self.commands = Commands(endpoint)
        """They have their own, cheaper connections to the same server."""
        self._finder = finder or sentinels_of(endpoint)
        """None: the settings name the server itself."""
        self._former: Redis | None = None

    async def locate(self) -> bool:
        """Find out which server is the primary now. Returns whether it has changed: then the client may be new.

        If the endpoint is bound, all connections are dropped, and the name is resolved anew. Raises NotConnected or
        Refused; then everything else is as it was.
        """
        if self._finder is None:
            return await self._reconnect()
        found = self.endpoint.at(await self._finder.primary())
        if found == self.endpoint:
            return await self._reconnect()
        if self.endpoint.binding is not None:
            found = found.bound()
        client = found.client(self._connections)
        try:
            await _require(client, found)
        except BaseException:
            await client.aclose()
            raise
        left, former, self._former = self.endpoint, self._former, self.client
        self.endpoint, self.client = found, client
        self.commands.close()
        self.commands = Commands(found)
        if left.binding is not None:
            await left.binding.release()  # a frozen server would keep callers waiting
        # The last client may still be in use, for one more command.
        if former is not None:
            await former.aclose()
        return True

    async def _reconnect(self) -> bool:
        """Leave the server, and see which one answers there now. Returns whether it is another one, not a restart."""
        endpoint = self.endpoint
        if endpoint.binding is None:
            if self._finder is not None:
                await _require(self.client, endpoint)
            return False
        await endpoint.binding.release()
        if self._finder is not None:
            await _require(self.client, endpoint)
        else:
            async with conversation(endpoint):
                await self.client.ping()
        return endpoint.binding.has_moved()

    async def lost(self) -> str:
        """Return when this server is no longer the primary, with the reason.

        A server that does not answer is no reason: its users will notice. It does not delay the look at the finder.
        """
        watches = [asyncio.create_task(self._demoted(), name="role-watch")]
        if self._finder is not None:
            watches.append(asyncio.create_task(self._replaced(self._finder), name="finder-watch"))
        try:
            await self.endpoint.clock.first(watches, None)
            return next(watch for watch in watches if watch.done()).result()
        finally:
            await end(watches)

    async def _demoted(self) -> str:
        """Return when the server says so."""
        endpoint = self.endpoint
        while True:
            await endpoint.clock.tick(endpoint.limits.primary_check)
            with suppress(NotConnected, Refused):
                role = await _role(self.client, endpoint)
                if role != "master":
                    return f"{endpoint.title} is no longer a primary (role {role})"

    async def _replaced(self, finder: Finder) -> str:
        """Return when the finder names another primary."""
        while True:
            await finder.news(self.endpoint.limits.primary_check)
            if other := await self.successor():
                return f"{self.endpoint.finder} names another primary: {other}"

    async def successor(self) -> Endpoint | None:
        """Another server, if the newest answer names one, and it is a primary: one stale answer proves nothing.

        Also None if that is not known.
        """
        if self._finder is None:
            return None
        with suppress(NotConnected, Refused):
            named = self.endpoint.at(await self._finder.primary())
            if named != self.endpoint and await self._is_primary(named):
                return named
        return None

    def beside(self) -> "Primary":
        """The same server, with new connections of its own. Raises Refused if a file cannot be used.

        The finder is shared: call `leave` on one of the two, and `close` on the other.
        """
        return Primary(self.endpoint.bound(), self._finder, self._connections)

    async def leave(self) -> None:
        """Give the connections back, except the finder's."""
        self.commands.close()
        await self.client.aclose()
        if self._former is not None:
            await self._former.aclose()

    async def close(self) -> None:
        """Give the connections back."""
        await self.leave()
        if self._finder is not None:
            await self._finder.close()

    async def _is_primary(self, endpoint: Endpoint) -> bool:
        client = endpoint.client(1)
        try:
            return await _role(client, endpoint) == "master"
        finally:
            await client.aclose()


async def _require(client: Redis, endpoint: Endpoint) -> None:
    role = await _role(client, endpoint)
    if role != "master":
        raise is_replica(endpoint, f" (role {role})")


async def _role(client: Redis, endpoint: Endpoint) -> str:
    """The role that a server reports. By INFO, which the bridge needs anyway: ROLE would be one more right."""
    async with conversation(endpoint, endpoint.limits.role):
        info = cast("dict[str, object]", await client.info("replication"))
    return str(info.get("role", "unknown"))


def sentinels_of(endpoint: Endpoint) -> Sentinels | None:
    """The sentinels that `BRIDGE_REDIS_URL` names, if it does."""
    return Sentinels(endpoint) if endpoint.settings.redis_address().sentinels else None
