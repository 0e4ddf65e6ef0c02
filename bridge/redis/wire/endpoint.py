"""How to reach Redis, and the one place where the client library's exceptions become ours.

Commands go through redis-py: RESP2 (RESP3 turns on maintenance notifications and costs more), no retries inside the
client (who calls knows what a lost reply means), credentials read anew at each connect. Notifications do not: see
`subscription.py`.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import redis.exceptions as client
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider

from bridge.errors import BridgeError, ErrorKind, NotConnected, Refused
from bridge.redis.wire.handshake import HungUp, PlainConnection, TlsConnection, UnixConnection, tls_context, unwelcome
from bridge.settings import Settings

COMMAND_TIMEOUT = 5.0
"""Seconds to wait for a reply, or for a connection."""
CLIENT_NAME = "expiry-bridge"
SENTINEL, CLUSTER = "Sentinel", "the cluster"
"""Who names the server, where the settings do not."""


class Fenced(BridgeError):
    """The epoch is over for the ledger: another one holds the lease, or the lease is gone."""


@dataclass(frozen=True)
class Endpoint:
    """One Redis server and how to log in to it."""

    settings: Settings
    host: str
    port: int
    path: str | None
    db: int
    tls: bool
    finder: str = ""
    """Who has named it, if not the settings: then it may be a replica tomorrow, and another one the primary."""

    @classmethod
    def of(cls, settings: Settings) -> "Endpoint":
        """The server that `BRIDGE_REDIS_URL` names. With Sentinel, or a cluster, nobody knows it yet: `primary.py`."""
        url = settings.redis_address()
        finder = SENTINEL if url.sentinels else CLUSTER if url.nodes else ""
        return cls(settings, url.host, url.port, url.path, url.db, url.tls, finder)

    @property
    def known(self) -> bool:
        """Whether it can be connected to: not before somebody has named it."""
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

    def ssl_context(self) -> ssl.SSLContext | None:
        """See `tls_context`; None without TLS."""
        return tls_context(self.settings) if self.tls else None

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
        }
        kind: type[AbstractConnection] = PlainConnection
        if self.path:
            kind = UnixConnection
            options["path"] = self.path
        else:
            options |= {"host": self.host, "port": self.port, "socket_keepalive": True}
            if self.tls:
                kind = TlsConnection
                tls_context(self.settings)  # a clear error now, not only at the first command
                options["context"] = partial(tls_context, self.settings)
        return Redis.from_pool(ConnectionPool(connection_class=kind, **options))  # closing it closes the pool


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
            raise client.RedisError(str(error)) from error
        if password is None:
            return cast("tuple[str]", ())  # no AUTH at all
        return (user, password) if user else (password,)


@asynccontextmanager
async def conversation(endpoint: Endpoint, timeout: float = COMMAND_TIMEOUT) -> AsyncIterator[None]:  # noqa: ASYNC109 - tells whose it was
    """One command: whatever the client library raises, and no reply in time, is NotConnected, Refused or Fenced."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except client.AuthenticationError as error:
        raise refused_login(endpoint, str(error)) from error
    except TimeoutError as error:
        message = f"{endpoint.title}: no answer within {timeout:g} s"
        raise NotConnected(message) from error
    except (client.ConnectionError, client.TimeoutError, OSError) as error:
        raise lost(endpoint, error, answered=not isinstance(error, HungUp)) from error
    except client.AskError as error:  # MOVED is one, too
        raise _elsewhere(endpoint, error) from error
    except (client.TryAgainError, client.ClusterDownError) as error:  # MASTERDOWN is one of the latter
        kind = ErrorKind.CLUSTER_DOWN if isinstance(error, client.ClusterDownError) else ErrorKind.OTHER
        raise NotConnected(f"{endpoint.title} cannot serve now: {error}", kind=kind) from error
    except client.ReadOnlyError as error:
        raise no_primary(endpoint) from error
    except client.ResponseError as error:
        raise refusal(endpoint, str(error)) from error
    except client.RedisError as error:
        told = unwelcome(endpoint.title, error, tls=endpoint.tls, answered=True)
        raise told or Refused(f"{endpoint.title} does not answer as a Redis does", "check BRIDGE_REDIS_URL") from error


def lost(endpoint: Endpoint, error: BaseException, *, answered: bool) -> BridgeError:
    """What a connection that could not be made, or broke, means; `answered`: whether it had been of any use before."""
    told = unwelcome(endpoint.title, error, tls=endpoint.tls, answered=answered)
    return told or NotConnected(f"{endpoint.title}: {str(error) or type(error).__name__}")


def _elsewhere(endpoint: Endpoint, error: client.ResponseError) -> BridgeError:
    """A node of a cluster does not serve this key now."""
    if endpoint.finder == CLUSTER:
        return NotConnected(f"{endpoint.title} does not serve the bridge's keys now: {error}")
    return of_cluster(endpoint, f" ({error})")


def of_cluster(endpoint: Endpoint, why: str = "") -> Refused:
    """The settings name it as a server of its own, and it is a part of a cluster."""
    return Refused(f"{endpoint.title} is a node of a cluster{why}", f"set BRIDGE_REDIS_URL to {cluster_url(endpoint)}")


def cluster_url(endpoint: Endpoint) -> str:
    """What the settings must say instead of naming one of its nodes."""
    return f"redis{'s' * endpoint.tls}+cluster://{'host:port' if endpoint.path else endpoint}"


def refused_login(endpoint: Endpoint, answer: str) -> Refused:
    """Redis would not log us in."""
    return Refused(f"{endpoint.title} refuses the login ({answer})", f"check {endpoint.login}")


def no_primary(endpoint: Endpoint, role: str = "") -> BridgeError:
    """It is a replica: for good, where the settings name it; until it is promoted, where somebody else does."""
    is_what = f"{endpoint.title} is a replica{role}: only a primary expires keys"
    if endpoint.finder:
        return NotConnected(f"{is_what}; {endpoint.finder} will name the primary")
    return Refused(is_what, "point BRIDGE_REDIS_URL at the primary")


_PASSING = ("LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY ", "MISCONF", "NOREPLICAS", "UNBLOCKED")
"""Answers of a server that is there, but cannot serve just now."""
_KINDS = {
    "MISCONF": ErrorKind.DISK,
    "maxmemory": ErrorKind.MEMORY,
    "NOREPLICAS": ErrorKind.REPLICAS,
    "CLUSTERDOWN": ErrorKind.CLUSTER_DOWN,
}
"""By a word of the answer."""


def refusal(endpoint: Endpoint, answer: str) -> BridgeError:
    """What an error that Redis answered with means for the caller."""
    if answer.startswith(("FENCED", "LEASELOST")):
        return Fenced(answer.partition(" ")[2])
    if answer.startswith(_PASSING):
        return NotConnected(f"{endpoint.title}: {answer}", kind=_kind(answer))
    if "not allowed in cluster mode" in answer:
        return of_cluster(endpoint, f" ({answer})")
    if "READONLY" in answer or "read only replica" in answer:
        return no_primary(endpoint)
    # Redis 7.0 says "no permissions", Valkey "No permissions".
    if any(word in answer.lower() for word in ("noperm", "no permissions", "acl failure", "can't run this command")):
        return Refused(
            f"{endpoint.title} does not permit what the bridge needs ({answer})",
            "widen the ACL of its user (`expiry-bridge check` says by what)",
            ErrorKind.DENIED,
        )
    return Refused(f"{endpoint.title} answers: {answer}", kind=_kind(answer))


def _kind(answer: str) -> ErrorKind:
    return next((kind for word, kind in _KINDS.items() if word in answer), ErrorKind.OTHER)
