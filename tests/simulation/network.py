"""The network between processes: connections in memory, on which a seed decides latency, cuts and losses.

Guarantees what TCP does: bytes arrive in order, once, or the connection ends; what was written before its end may have
arrived or not, and each side learns of that end in its own time. A side that is cut off without a word learns nothing.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tests.simulation.loop import OWNER, SimLoop, SimProcess

Address = tuple[str, int]
PUSHED = b"*3\r\n$7\r\nmessage"
"""How a notification begins."""


class Peer(Protocol):
    """The server's side of one connection."""

    def received(self, data: bytes) -> None:
        """Bytes have arrived."""

    def gone(self) -> None:
        """The connection is over."""


class Listener(Protocol):
    """A server that takes connections."""

    def accept(self, reply: Callable[[bytes], None], hang_up: Callable[[], None]) -> Peer:
        """A new one. Raises OSError where it is refused."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """How good the network is."""

    latency: float = 0.0002
    """Seconds for most of the ways, at least."""
    jitter: float = 0.0005
    slow: float = 0.0
    """How often a way takes up to `slow_seconds`."""
    slow_seconds: float = 0.05
    behind: float = 0.0
    """Seconds more that what is pushed to subscribers may take."""
    chop: float = 0.0
    """How often what was written arrives in two pieces."""


class Pipe:
    """One direction of a connection."""

    def __init__(self, network: "Network", deliver: Callable[[bytes], None], process: SimProcess | None) -> None:
        self._network = network
        self._deliver = deliver
        self._process = process
        self._free_at = 0.0
        self._queue: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.closed = False

    def send(self, data: bytes) -> None:
        """Let it arrive, behind what was sent before."""
        network = self._network
        rng, conditions = network.rng, network.conditions
        if conditions.chop and len(data) > 1 and rng.random() < conditions.chop:
            cut = rng.randrange(1, len(data))
            self._at(self._delay(data), self._arrive, data[:cut])
            data = data[cut:]
        self._at(self._delay(data), self._arrive, data)

    def then(self, act: Callable[[], None]) -> None:
        """Do something behind all that was sent."""
        self._at(self._delay(b""), act)

    def stall(self, seconds: float) -> None:
        """Nothing more arrives for so long."""
        self._free_at = max(self._free_at, self._network.loop.time() + seconds)

    def release(self) -> None:
        """What was to arrive later arrives now."""
        self._free_at = self._network.loop.time()
        waiting, self._queue = self._queue, deque()
        for act, words in waiting:
            self._at(self._network.conditions.latency, act, *words)

    def _delay(self, data: bytes) -> float:
        rng, conditions = self._network.rng, self._network.conditions
        if conditions.behind and data.startswith(PUSHED):
            return conditions.latency + rng.random() * conditions.behind
        if conditions.slow and rng.random() < conditions.slow:
            return rng.random() * conditions.slow_seconds
        return conditions.latency + rng.random() * conditions.jitter

    def _at(self, delay: float, act: Callable[..., None], *words: Any) -> None:  # noqa: ANN401 - of whatever is called
        loop = self._network.loop
        self._free_at = max(self._free_at + 1e-9, loop.time() + delay)
        context = self._process.context if self._process is not None else self._network.context
        self._queue.append((act, words))
        loop.call_at(self._free_at, self._next, context=context)

    def _next(self) -> None:
        """What comes next, whichever of the timers this is: what is ready may run in any order."""
        if self._queue:  # else it has arrived already
            act, words = self._queue.popleft()
            act(*words)

    def _arrive(self, data: bytes) -> None:
        if not self.closed:
            self._deliver(data)


class Link(asyncio.Transport):
    """A connection, as its client sees it."""

    def __init__(self, network: "Network", protocol: asyncio.Protocol, address: Address) -> None:
        super().__init__()
        self.address = address
        self.process = OWNER.get()
        self.peer: Peer | None = None
        self._network = network
        self._protocol: Any = protocol
        self._closing = False
        self._lost = False
        self._held: list[bytes] | None = None
        self.up = Pipe(network, self._to_server, None)
        self.down = Pipe(network, self._to_client, self.process)

    # What the client's code calls.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        if data and not self._closing:
            self.up.send(bytes(data))

    def writelines(self, list_of_data: Any) -> None:  # noqa: ANN401 - asyncio's
        """Send all of it at once."""
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """Send what was written, and end."""
        self._end(lose=False)

    def abort(self) -> None:
        """End; what is on its way may be lost."""
        self._end(lose=self._network.rng.random() < self._network.lost_at_abort)

    def is_closing(self) -> bool:
        """Whether it has ended on this side."""
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - asyncio's
        """Nothing is known of it but its address."""
        return self.address if name == "peername" else default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell another one."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Whom it tells."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def pause_reading(self) -> None:
        """Keep what arrives."""
        if self._held is None:
            self._held = []

    def resume_reading(self) -> None:
        """Hand over what was kept."""
        held, self._held = self._held, None
        for data in held or ():
            self._to_client(data)

    def is_reading(self) -> bool:
        """Whether what arrives is handed over."""
        return self._held is None

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There are none: a write never waits."""

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def can_write_eof(self) -> bool:
        """One side alone is never closed."""
        return False

    # What happens to it.

    def sever(self, *, client: bool = True, server: bool = True) -> None:
        """The network ends it: that side learns of it, by and by; what is on its way there is lost, or not."""
        rng = self._network.rng
        for pipe in (self.up, self.down):
            pipe.closed = pipe.closed or rng.random() < 0.5
        if server:
            self.up.then(self._server_gone)
        if client:
            self.down.then(self._reset)

    def hang_up(self) -> None:
        """The server closes it."""
        self.up.closed = True
        self.peer = None
        self.down.then(self._closed_by_server)

    def _end(self, *, lose: bool) -> None:
        if self._closing:
            return
        self._closing = True
        self.down.closed = True
        self.up.closed = self.up.closed or lose
        self.up.then(self._server_gone)
        self._network.forget(self)
        self._network.loop.call_soon(self._tell_lost, None)

    def _to_server(self, data: bytes) -> None:
        if self.peer is not None:
            self.peer.received(data)

    def _to_client(self, data: bytes) -> None:
        if self._held is not None:
            self._held.append(data)
        elif not self._lost:
            self._protocol.data_received(data)

    def _server_gone(self) -> None:
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.gone()

    def _closed_by_server(self) -> None:
        if not self._lost and not self._closing:
            self._protocol.eof_received()
            self._tell_lost(None)

    def _reset(self) -> None:
        self._tell_lost(ConnectionResetError(104, "Connection reset by peer"))

    def _tell_lost(self, error: Exception | None) -> None:
        self._closing = self.down.closed = True
        if not self._lost:
            self._lost = True
            self._network.forget(self)
            self._protocol.connection_lost(error)


class Network:
    """All connections, and who takes them."""

    def __init__(self, loop: SimLoop, rng: random.Random, conditions: Conditions) -> None:
        self.loop = loop
        self.rng = rng
        self.conditions = conditions
        self.lost_at_abort = 0.5
        """How often what was on its way is lost when a client ends its connection at once."""
        self.links: list[Link] = []
        self.context = SimProcess("network", loop).context
        """What the servers' callbacks run in."""
        self._listeners: dict[Address, Listener] = {}

    def listen(self, address: Address, listener: Listener) -> None:
        """Take connections there."""
        self._listeners[address] = listener

    def deaf(self, address: Address) -> None:
        """Refuse connections there."""
        self._listeners.pop(address, None)

    async def connect(self, protocol: asyncio.Protocol, host: str, port: int) -> asyncio.Transport:
        """See `SimLoop.create_connection`."""
        await asyncio.sleep(2 * self.conditions.latency)
        listener = self._listeners.get((host, port))
        if listener is None:
            raise ConnectionRefusedError(111, f"Connect call failed ('{host}', {port})")
        link = Link(self, protocol, (host, port))
        link.peer = listener.accept(link.down.send, link.hang_up)
        self.links.append(link)
        protocol.connection_made(link)
        return link

    def calm(self) -> None:
        """Nothing is slow any longer."""
        self.conditions = Conditions()
        for link in self.links:
            link.up.release()
            link.down.release()

    def forget(self, link: Link) -> None:
        """It is over."""
        if link in self.links:
            self.links.remove(link)

    def bury(self, process: SimProcess) -> None:
        """A process has died: the servers learn of it, behind what it has sent."""
        for link in [link for link in self.links if link.process is process]:
            self.forget(link)
            link.down.closed = True
            link.up.then(link._server_gone)
