"""The servers of the streams: one, one behind sentinels, or the primaries of a cluster.

They are reached as the source's are (`bridge/redis/wire`). Their errors name the sink's settings.
"""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from pydantic import SecretStr
from redis.asyncio import Redis

from bridge.clock import Clock
from bridge.errors import ConfigurationError, NotConnected, Refused, Unusable
from bridge.limits import WireLimits
from bridge.redis.wire.conversation import conversation
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.primary import Primary
from bridge.redis.wire.topology import Topology
from bridge.settings import Settings
from bridge.tasks import end

CONNECTIONS = 8


def settings_of(settings: Settings) -> Settings:
    """The same settings with the sink's server in the place of the source's. The files for TLS serve both."""
    if not settings.has_sink_redis_url:
        return settings
    update: dict[str, SecretStr | Path | str | None] = {
        "redis_url": settings.sink_redis_url or settings.redis_url,
        "redis_url_file": settings.sink_redis_url_file,
        "redis_username": None,
        "redis_password": None,
        "redis_password_file": None,
        "redis_credentials_provider": settings.sink_redis_credentials_provider,
    }
    return settings.model_copy(update=update)


class SinkEndpoint(Endpoint):
    """One of those servers."""

    @property
    def title(self) -> str:
        """See `Endpoint`."""
        return f"the sink's Redis at {self}"

    @property
    def login(self) -> str:
        """See `Endpoint`."""
        url = self.settings.has_sink_redis_url and self.logins is None
        return "the user and the password in BRIDGE_SINK_REDIS_URL" if url else super().login


def endpoint_of(settings: Settings, limits: WireLimits, clock: Clock) -> SinkEndpoint:
    """Where the sink's server is, as far as the settings name it."""
    try:
        return cast("SinkEndpoint", SinkEndpoint.of(settings_of(settings), limits, clock))
    except ConfigurationError as error:
        raise ConfigurationError([_of_sink(problem) for problem in error.problems]) from None


class Server(NamedTuple):
    """One that is reached."""

    client: Redis
    endpoint: Endpoint


class Servers(Protocol):
    """See the module."""

    async def open(self) -> None:
        """Find the server, or all of them. Raises NotConnected or Refused."""

    def of(self, stream: bytes) -> Server:
        """The server that has a stream. Raises NotConnected: none has it now."""

    def all(self) -> list[Server]:
        """All that are known."""

    async def lost(self) -> str:
        """Return when they have to be looked for anew, with the reason."""

    async def close(self) -> None:
        """Give the connections back."""


class OneServer:
    """One that the settings, or the sentinels, name."""

    def __init__(self, endpoint: SinkEndpoint) -> None:
        self._primary = Primary(endpoint, connections=CONNECTIONS)

    async def open(self) -> None:
        """See `Servers`."""
        await self._primary.locate()
        client, endpoint = self.of(b"")
        async with conversation(endpoint):
            role = (await client.info("replication")).get("role")
        if role != "master":
            found = f"{endpoint.title} is no primary (role {role}), and takes no writes"
            if endpoint.finder:
                raise NotConnected(f"{found}; {endpoint.finder} will name the primary")
            raise Refused(found, "point BRIDGE_REDIS_URL at the primary")

    def of(self, stream: bytes) -> Server:  # noqa: ARG002 - it has all streams
        """See `Servers`."""
        return Server(self._primary.client, self._primary.endpoint)

    def all(self) -> list[Server]:
        """See `Servers`."""
        return [self.of(b"")]

    async def lost(self) -> str:
        """See `Servers`."""
        watches = [asyncio.create_task(watch(), name="sink-watch") for watch in (self._primary.lost, self._silent)]
        try:
            await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
            return next(watch for watch in watches if watch.done()).result()
        finally:
            await end(watches)

    async def _silent(self) -> str:
        """Return when it does not answer."""
        endpoint = self._primary.endpoint
        while True:
            await endpoint.clock.tick(endpoint.limits.primary_check)
            try:
                await _ping(*self.of(b""))
            except (NotConnected, Refused) as error:
                return str(error)

    async def close(self) -> None:
        """See `Servers`."""
        await self._primary.close()


class ClusterServers:
    """The primaries of a cluster."""

    def __init__(self, endpoint: SinkEndpoint) -> None:
        self._endpoint = endpoint
        self._topology = Topology(endpoint)

    async def open(self) -> None:
        """See `Servers`."""
        await self._topology.refresh()

    def of(self, stream: bytes) -> Server:
        """See `Servers`."""
        node = self._topology.owner(stream)
        if node is None:
            raise NotConnected("the sink's cluster does not serve a stream's slot now")
        return Server(self._topology.client(node.address), self._endpoint.at(node.address))

    def all(self) -> list[Server]:
        """See `Servers`."""
        nodes = self._topology.primaries.values()
        return [Server(self._topology.client(node.address), self._endpoint.at(node.address)) for node in nodes]

    async def lost(self) -> str:
        """See `Servers`."""
        while True:
            await self._endpoint.clock.tick(self._endpoint.limits.topology)
            try:
                await self._topology.refresh()
            except (NotConnected, Refused) as error:
                return str(error)

    async def close(self) -> None:
        """See `Servers`."""
        await self._topology.close()


def servers_of(settings: Settings, limits: WireLimits, clock: Clock) -> Servers:
    """Those of the settings."""
    endpoint = endpoint_of(settings, limits, clock)
    make: Callable[[SinkEndpoint], Servers] = ClusterServers if endpoint.settings.redis_address().nodes else OneServer
    return make(endpoint)


def named(error: Unusable, settings: Settings) -> Unusable:
    """The error with the sink's own settings in the place of the source's, where it has a server of its own."""
    if not settings.has_sink_redis_url:
        return error
    kind = Refused if isinstance(error, Refused) else NotConnected
    return kind(_of_sink(error.found), _of_sink(error.remedy), error.kind)


def _of_sink(text: str) -> str:
    """With the names of the sink's own settings."""
    return re.sub("BRIDGE_REDIS_(URL|CREDENTIALS_PROVIDER)", r"BRIDGE_SINK_REDIS_\1", text)


async def _ping(client: Redis, endpoint: Endpoint) -> None:
    async with conversation(endpoint):
        await client.ping()
