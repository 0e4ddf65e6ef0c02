"""One Redis server: where it is, how to log in, how long it may take, and a client for it."""

import asyncio
import socket
import ssl
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from bridge.clock import Clock, SystemClock
from bridge.limits import WireLimits
from bridge.redis.wire.binding import Binding
from bridge.redis.wire.handshake import PlainConnection, RenewingPool, TlsConnection, UnixConnection, redis_tls
from bridge.redis.wire.logins import VARIABLE, Login, Logins, logins_of
from bridge.settings import Settings
from bridge.tls import ClientTls

CLIENT_NAME = "expiry-bridge"
SENTINEL, CLUSTER = "Sentinel", "the cluster"
"""What names the server, if the settings do not."""

Address = tuple[str, int]


@dataclass(frozen=True)
class Endpoint:
    """See the module. Two are equal if they are the same server, with the same login."""

    settings: Settings
    host: str
    port: int
    path: str | None
    db: int
    tls: bool
    finder: str = ""
    """What has named it, if not the settings. Then it may be a replica tomorrow, and another server the primary."""
    limits: WireLimits = field(default_factory=WireLimits)
    clock: Clock = field(default_factory=SystemClock, compare=False)
    binding: Binding | None = field(default=None, compare=False)
    """The process that all connections must reach; None for any."""

    @classmethod
    def of(cls, settings: Settings, limits: WireLimits | None = None, clock: Clock | None = None) -> "Endpoint":
        """The server that `BRIDGE_REDIS_URL` names. With Sentinel, or a cluster, it is not known yet: `primary.py`.

        Raises ConfigurationError if there is no such credentials provider.
        """
        if settings.redis_credentials_provider is not None:
            logins_of(settings.redis_credentials_provider)
        url = settings.redis_address()
        finder = SENTINEL if url.sentinels else CLUSTER if url.nodes else ""
        return cls(
            settings,
            url.host,
            url.port,
            url.path,
            url.db,
            url.tls,
            finder,
            limits or WireLimits(),
            clock or SystemClock(),
        )

    def at(self, address: Address) -> "Endpoint":
        """Another server with the same login; not bound."""
        host, port = address
        return replace(self, host=host, port=port, binding=None)

    def bound(self) -> "Endpoint":
        """The same server, with a binding of its own."""
        return replace(self, binding=Binding(self.clock))

    @property
    def known(self) -> bool:
        """Whether it can be connected to: not before it was named."""
        return bool(self.host or self.path)

    @property
    def title(self) -> str:
        """What to call it in messages."""
        return f"Redis at {self}"

    @property
    def login(self) -> str:
        """The settings to check where the login is refused."""
        if self.logins is not None:
            return f"what {VARIABLE} gives"
        apart = "BRIDGE_REDIS_USERNAME and BRIDGE_REDIS_PASSWORD (or BRIDGE_REDIS_PASSWORD_FILE)"
        return f"{apart}, or the user in BRIDGE_REDIS_URL"

    def __str__(self) -> str:
        if not self.known:
            return f"Sentinel's {self.settings.redis_address().service}" if self.finder == SENTINEL else self.finder
        return self.path or f"{self.host}:{self.port}"

    @property
    def user(self) -> str:
        """The ACL user as which we log in; with a credentials provider, the last one that it gave."""
        if self.logins is not None:
            return (self.logins.known and self.logins.known.user) or "default"
        return self.credentials()[0] or "default"

    @property
    def logins(self) -> Logins | None:
        """Those of a credentials provider; None if the settings hold the only login."""
        name = self.settings.redis_credentials_provider
        return None if name is None else logins_of(name)

    async def current_login(self) -> Login | None:
        """How a new connection logs in; None if it does not. Raises Refused, or NoLogin."""
        if self.logins is not None:
            return await self.logins.fresh(self.clock, self.limits)
        user, password = self.credentials()
        return Login(user, password) if password else None

    def credentials(self) -> tuple[str | None, str | None]:
        """User and password, read now: a mounted secret may have been rotated since the last connect."""
        url = self.settings.redis_address()
        user = self.settings.redis_username or url.username
        password = self.settings.secret("redis_password") or url.password
        return user or None, password or None

    def certificates(self) -> ClientTls | None:
        """None without TLS."""
        return redis_tls(self.settings) if self.tls else None

    def ssl_context(self) -> ssl.SSLContext | None:
        """None without TLS. Raises Refused where a file cannot be used."""
        certificates = self.certificates()
        return None if certificates is None else certificates.context()

    async def open(self, protocol: asyncio.Protocol, tls: ssl.SSLContext | None) -> None:
        """Connect. When this returns, TLS is established, and nothing else was sent. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self.path:
            await loop.create_unix_connection(lambda: protocol, self.path)
            return
        timeout = self.limits.handshake if tls else None  # asyncio allows none without TLS
        transport, _ = await loop.create_connection(
            lambda: protocol, self.host, self.port, ssl=tls, ssl_handshake_timeout=timeout
        )
        if (connection := transport.get_extra_info("socket")) is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def client(self, connections: int = 8) -> Redis:
        """A command client with a pool of at most `connections` connections, opened when first needed."""
        options: dict[str, Any] = {
            "db": self.db,
            "protocol": 2,
            "client_name": CLIENT_NAME,
            "login": self.current_login,
            # `conversation` has the timeout. The library's own sends through `asyncio.wait_for`, which can swallow a
            # cancellation on Python 3.11, and costs a task per command.
            "socket_timeout": None,
            "socket_connect_timeout": None,
            "retry": Retry(NoBackoff(), 0),
            "max_connections": connections,
            "binding": self.binding,
        }
        kind: type[AbstractConnection] = PlainConnection
        if self.path:
            kind = UnixConnection
            options["path"] = self.path
        else:
            options |= {"host": self.host, "port": self.port, "socket_keepalive": True}
            if self.tls:
                kind = TlsConnection
                self.ssl_context()  # a clear error now, not only at the first command
                options |= {"context": partial(_context, self), "handshake": self.limits.handshake}
        if self.logins is None:
            return Redis.from_pool(ConnectionPool(connection_class=kind, **options))  # closing it closes the pool
        logins = partial(self.logins.look, self.clock, self.limits)
        return Redis.from_pool(RenewingPool(logins, connection_class=kind, **options))


def _context(endpoint: Endpoint) -> ssl.SSLContext:
    return redis_tls(endpoint.settings).context()
