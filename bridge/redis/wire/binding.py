"""The one process of Redis that all connections of an epoch reach.

An address is only a name: tomorrow another server may be behind it (DNS, a Service, a proxy, a failover), while
connections to the former one live on. So the first connection of an epoch decides, and each later one must reach the
same process, which the `run_id` of INFO identifies. A connection itself never changes its server.

If the server refuses the login or certificate that a file or a provider has now, a new connection uses those with which
an earlier connection of the epoch was let in. So the epoch goes on until another session can take over
(`source/relief.py`).

Guarantees: no script is sent to a process other than the one that the subscription listens to; when an epoch is over,
none of its connections is used again. A server that does not report its `run_id` counts as the same.
"""

import ssl
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

from redis.exceptions import ConnectionError as RedisConnectionError

from bridge.clock import Clock
from bridge.redis.wire.logins import Login

ROUNDING = 1.0
"""In seconds: servers report their uptime in whole seconds."""


class OtherServerError(RedisConnectionError):
    """The server that answers is not the one that the epoch is bound to."""

    def __init__(self) -> None:
        super().__init__("another server answers there now than at the beginning of the epoch")


@dataclass(frozen=True, slots=True)
class Process:
    """What a server reports about itself in INFO."""

    run_id: bytes
    uptime: float
    """Seconds."""

    @classmethod
    def of(cls, info: bytes) -> "Process":
        """Read it from the answer to INFO."""
        fields = dict(line.partition(b":")[::2] for line in info.splitlines())
        uptime = fields.get(b"uptime_in_seconds", b"")
        return cls(fields.get(b"run_id", b""), float(uptime) if uptime.isdigit() else 0.0)


class Droppable(Protocol):
    """The part of a connection that matters here."""

    async def drop(self) -> None:
        """End it at once: callers that wait for an answer get an error."""


class Binding:
    """See the module. All connections to one endpoint share it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._connections = WeakKeyDictionary[Droppable, None]()
        """In the order in which they were opened (a set has no order): they are dropped in that order."""
        self._process: Process | None = None
        self._bound_at = 0.0
        self._former: tuple[Process, float] | None = None
        """The last process, and since when we were bound to it."""
        self._moved = False
        self.releases = 0
        """How often connections were dropped."""
        self.login: Login | None = None
        """The login with which the last connection was let in."""
        self.context: ssl.SSLContext | None = None
        """Likewise its certificates; None without TLS."""
        self.ends_at: float | None = None
        """When the first login of any connection ends, on the bridge's clock; None if not known."""
        self.told_at = 0.0
        """When that was learned."""

    def opened(self, connection: Droppable) -> None:
        """Register a connection, before it is used, and before `require`."""
        self._connections[connection] = None

    def require(self, info: bytes) -> None:
        """Bind to the server that gave that answer to INFO. Raises OtherServerError if another one is bound already."""
        process, now = Process.of(info), self._clock.monotonic()
        if self._process is not None:
            if process.run_id != self._process.run_id:
                raise OtherServerError
            return
        self._process, self._bound_at = process, now
        if self._former is not None:
            former, since = self._former
            self._moved |= process.run_id != former.run_id and process.uptime > now - since + ROUNDING

    def has_moved(self) -> bool:
        """Whether another process was bound since this was last asked, that is no restart of the one before.

        It already ran while we were bound to that one. This is remembered over releases: whatever connects first, the
        one who has to know may ask much later.
        """
        moved, self._moved = self._moved, False
        return moved

    def login_ends(self, at: float) -> None:
        """A connection was logged in with a login that ends at `at`, on the bridge's clock (`Clock.monotonic`)."""
        if self.ends_at is None or at < self.ends_at:
            self.ends_at, self.told_at = at, self._clock.monotonic()

    @property
    def run_id(self) -> bytes | None:
        """That of the process that it is bound to; None while it is not bound."""
        return None if self._process is None else self._process.run_id

    async def release(self) -> None:
        """Drop all connections; the next one decides what the following epoch is bound to."""
        self.releases += 1
        self.ends_at = self.login = self.context = None
        if self._process is not None:
            if not self._moved:
                self._former = self._process, self._bound_at
            self._process = None
        for connection in list(self._connections):
            await connection.drop()
        self._connections.clear()
