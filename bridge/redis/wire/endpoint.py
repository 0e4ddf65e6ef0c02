"""One Redis server: where it is, how to log in, how long it may take, and a client for it."""

import ssl
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from bridge.clock import Clock, SystemClock
from bridge.errors import Refused
from bridge.limits import WireLimits
from bridge.redis.wire.binding import Binding
from bridge.redis.wire.handshake import PlainConnection, TlsConnection, UnixConnection, redis_tls
from bridge.settings import Settings
from bridge.tls import ClientTls

CLIENT_NAME = "expiry-bridge"
SENTINEL, CLUSTER = "Sentinel", "the cluster"
"""Who names the server, where the settings do not."""

Address = tuple[str, int]


@dataclass(frozen=True)
class Endpoint:
    """See the module. Two are equal that are the same server, with the same login."""

    settings: Settings
    host: str
    port: int
    path: str | None
    db: int
    tls: bool
    finder: str = ""
    """Who has named it, if not the settings: then it may be a replica tomorrow, and another one the primary."""
    limits: WireLimits = field(default_factory=WireLimits)
    clock: Clock = field(default_factory=SystemClock, compare=False)
    binding: Binding | None = field(default=None, compare=False)
    """Which process all connections must reach; None: any."""

    @classmethod
    def of(cls, settings: Settings, limits: WireLimits | None = None, clock: Clock | None = None) -> "Endpoint":
        """The server that `BRIDGE_REDIS_URL` names. With Sentinel, or a cluster, it is not known yet: `primary.py`."""
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
        return "BRIDGE_REDIS_USERNAME and BRIDGE_REDIS_PASSWORD (or BRIDGE_REDIS_PASSWORD_FILE)"

    def __str__(self) -> str:
        if not self.known:
            return f"Sentinel's {self.settings.redis_address().service}" if self.finder == SENTINEL else self.finder
        return self.path or f"{self.host}:{self.port}"

    @property
    def user(self) -> str:
        """The ACL user that we log in as."""
        return self.credentials()[0] or "default"

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

    def client(self, connections: int = 8) -> Redis:
        """A command client with a pool of at most `connections` connections, opened when first needed."""
        options: dict[str, Any] = {
            "db": self.db,
            "protocol": 2,
            "client_name": CLIENT_NAME,
            "credential_provider": _Credentials(self),
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
        return Redis.from_pool(ConnectionPool(connection_class=kind, **options))  # closing it closes the pool


def _context(endpoint: Endpoint) -> ssl.SSLContext:
    return redis_tls(endpoint.settings).context()


class _Credentials(CredentialProvider):
    """redis-py asks this at every connect."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        try:
            user, password = self._endpoint.credentials()
        except Refused as error:
            # Of its own errors alone, the library takes that the connection cannot be used: after any other, the next
            # command would go out without a login.
            raise RedisError(str(error)) from error
        if password is None:
            return cast("tuple[str]", ())  # no AUTH at all
        return (user, password) if user else (password,)
