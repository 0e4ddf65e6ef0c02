"""The one process of Redis that all connections of an epoch reach.

An address is only a name: behind it may be another server tomorrow (DNS, a Service, a proxy, a failover), while
connections to the former one live on. So the first connection of an epoch decides, and each later one must reach the
same process, which INFO tells by its `run_id`. A connection itself never changes its server.

Guarantees: no script is sent to another process than the one that the subscription listens to; when an epoch is over,
no connection of it is used again. A server that does not say its `run_id` counts as the same.
"""

from dataclasses import dataclass
from typing import Protocol
from weakref import WeakSet

from redis.exceptions import ConnectionError as RedisConnectionError

from bridge.clock import Clock

ROUNDING = 1.0
"""Seconds: servers say how long they have been up in whole ones."""


class OtherServerError(RedisConnectionError):
    """Another server answers than the one that the epoch is bound to."""

    def __init__(self) -> None:
        super().__init__("another server answers there now than at the beginning of the epoch")


@dataclass(frozen=True, slots=True)
class Process:
    """What a server says of itself in INFO."""

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
    """A connection, as far as it is of interest here."""

    async def drop(self) -> None:
        """End it at once: whoever waits for an answer gets an error."""


class Binding:
    """See the module. All connections to one endpoint share it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._connections = WeakSet[Droppable]()
        self._process: Process | None = None
        self._bound_at = 0.0
        self._former: tuple[Process, float] | None = None
        """The last process, and since when we were bound to it."""
        self.moved = False
        """Whether the process is another one than before, and no restart: it ran while we were still bound to that."""
        self.releases = 0
        """How often connections were dropped."""

    def opened(self, connection: Droppable) -> None:
        """To be told before it is used, and before `require`."""
        self._connections.add(connection)

    def require(self, info: bytes) -> None:
        """Bind to the server that answered so to INFO. Raises OtherServerError where another one is bound already."""
        process, now = Process.of(info), self._clock.monotonic()
        if self._process is not None:
            if process.run_id != self._process.run_id:
                raise OtherServerError
            return
        self._process, self._bound_at = process, now
        if self._former is not None:
            former, since = self._former
            self.moved = process.run_id != former.run_id and process.uptime > now - since + ROUNDING

    async def release(self) -> None:
        """Drop all connections; the next one decides what the following epoch is bound to."""
        self.releases += 1
        self.moved = False
        if self._process is not None:
            self._former, self._process = (self._process, self._bound_at), None
        for connection in list(self._connections):
            await connection.drop()
        self._connections.clear()
