"""An event loop in which time is virtual and a seed decides the order of what is ready.

Guarantees: the same seed gives the same order, whatever the machine does meanwhile. Nothing sleeps: when nothing is
ready, time jumps to the next timer. Nothing leaves the process: connections go to the network in memory, work for
threads is done at once, and whatever else would do I/O raises.

A *process* is what is killed, frozen and started together: everything that its code schedules is its own, because each
callback carries the context that it was scheduled in.
"""

import asyncio
import heapq
import random
import socket
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any, NoReturn, Protocol, cast

OWNER: ContextVar["SimProcess | None"] = ContextVar("simulated-process", default=None)
"""The process whose code runs."""
_STARVED = 10_000_000
"""Callbacks in one run, after which it is taken for one that never ends."""


class RealIOError(RuntimeError):
    """The code under simulation has asked for something outside it."""


class OutOfStepsError(RuntimeError):
    """The run does not come to an end."""


class SimTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on where in memory it lies."""

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        serial: int,
        owner: "SimProcess | None",
        **options: Any,  # noqa: ANN401 - asyncio's
    ) -> None:
        self.serial = serial  # before asyncio registers it by its hash
        self.owner = owner
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self.serial


class SimFuture(asyncio.Future[Any]):
    """As `SimTask`."""

    def __init__(self, serial: int, loop: asyncio.AbstractEventLoop) -> None:
        self.serial = serial
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.serial


class SimProcess:
    """A process of the simulated world."""

    def __init__(self, name: str, loop: "SimLoop") -> None:
        self.name = name
        self.alive = True
        self.signals: dict[int, Callable[[], object]] = {}
        self.failure: BaseException | None = None
        """What escaped its code, if anything did."""
        self._loop = loop
        self._frozen: list[asyncio.Handle] | None = None
        self._context = copy_context()
        self._context.run(OWNER.set, self)

    @property
    def context(self) -> Context:
        """What its callbacks run in."""
        return self._context

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of this process."""
        return self._loop.create_task(coroutine, context=self._context.copy())

    def signal(self, number: int) -> None:
        """Send it a signal that it handles."""
        if self.alive and number in self.signals:
            self._loop.call_soon(self.signals[number], context=self._context)

    def freeze(self) -> None:
        """Stop its code, as SIGSTOP does; its connections stay."""
        if self._frozen is None:
            self._frozen = []

    def thaw(self) -> None:
        """Let it go on with all that has become due meanwhile."""
        held, self._frozen = self._frozen, None
        if held and self.alive:
            self._loop.resume(held)

    @property
    def frozen(self) -> bool:
        """Whether it stands still."""
        return self._frozen is not None

    def hold(self, handle: asyncio.Handle) -> bool:
        """Whether the callback waits, or is lost, because the process does not run."""
        if not self.alive:
            return True
        if self._frozen is None:
            return False
        self._frozen.append(handle)
        return True


class Net(Protocol):
    """Where the loop's connections go."""

    async def connect(self, protocol: asyncio.Protocol, host: str, port: int) -> asyncio.Transport:
        """A connection, or OSError."""


class SimLoop(asyncio.BaseEventLoop):
    """See the module."""

    def __init__(self, seed: int, *, disorder: float = 0.0, step: float = 1e-6) -> None:
        """`disorder`: how often the next callback is not the oldest one. `step`: seconds that each of them takes."""
        super().__init__()
        self.net: Net | None = None
        self.graveyard: list[object] = []
        """What belongs to killed processes: kept, so that no cleanup runs before the world has ended."""
        self.complaints: list[str] = []
        """What asyncio's exception handler was called with."""
        self.steps = 0
        self._now = 1000.0
        self._rng = random.Random(seed)
        self._disorder = disorder
        self._step = step
        self._serial = count(1)
        self._all: set[SimTask] = set()
        self.set_task_factory(cast("Any", self._make_task))
        self.set_exception_handler(self._complain)

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    # How callbacks run.

    def _run_once(self) -> None:
        ready = cast("Any", self)._ready
        timers: list[asyncio.TimerHandle] = cast("Any", self)._scheduled
        while timers and timers[0].cancelled():
            heapq.heappop(timers)
        if not ready:
            if not timers:
                raise OutOfStepsError("deadlock: nothing is ready, and no timer will ever be")
            self._now = max(self._now, timers[0].when())
        while timers and timers[0].when() <= self._now:
            ready.append(heapq.heappop(timers))
        rng = self._rng
        for _ in range(len(ready)):
            if self._disorder and len(ready) > 1 and rng.random() < self._disorder:
                ready.rotate(-rng.randrange(len(ready)))
            handle = ready.popleft()
            if handle.cancelled():
                continue
            owner = handle._context.get(OWNER)
            if owner is not None and owner.hold(handle):
                continue
            self.steps += 1
            self._now += self._step
            handle._run()
        if self.steps > _STARVED:
            raise OutOfStepsError("the run does not come to its end")

    def resume(self, handles: list[asyncio.Handle]) -> None:
        """Run what was held."""
        cast("Any", self)._ready.extend(handles)

    def kill(self, process: SimProcess) -> None:
        """End a process at once: none of its code runs again, not even its cleanup."""
        process.alive = False
        process.thaw()
        self.graveyard += [task for task in self._all if task.owner is process and not task.done()]
        self.graveyard.append(process)

    # What BaseEventLoop needs.

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Any],
        **options: Any,  # noqa: ANN401 - asyncio's
    ) -> asyncio.Task[Any]:
        context: Context | None = options.get("context")
        owner = OWNER.get() if context is None else context.get(OWNER)
        task = SimTask(coroutine, self.serial(), owner, loop=loop, **options)
        cast("Any", task)._log_destroy_pending = False
        self._all.add(task)
        task.add_done_callback(self._all.discard)
        return task

    def create_future(self) -> asyncio.Future[Any]:
        """A future with a place of its own."""
        return SimFuture(self.serial(), self)

    def serial(self) -> int:
        """A number that no other task, future or connection of this run has."""
        return next(self._serial)

    def _complain(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _process_events(self, event_list: object) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def call_soon_threadsafe(self, *_: Any, **__: Any) -> NoReturn:  # type: ignore[override]  # noqa: ANN401 - asyncio's
        """There are no threads."""
        raise RealIOError("another thread calls")

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # noqa: ANN401 - asyncio's
        """Done at once."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whoever awaits it gets it
            future.set_exception(error)
        return future

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:  # type: ignore[override]  # noqa: ANN401 - asyncio's
        """The process gets the signal by `SimProcess.signal`."""
        owner = OWNER.get()
        if owner is not None:
            owner.signals[sig] = lambda: callback(*args)

    def remove_signal_handler(self, sig: int) -> bool:
        """It gets it no longer."""
        owner = OWNER.get()
        return owner is not None and owner.signals.pop(sig, None) is not None

    # The network.

    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: Any = None,  # noqa: ANN401 - asyncio's
        port: Any = None,  # noqa: ANN401 - likewise
        **options: Any,  # noqa: ANN401 - likewise
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """A connection of the network in memory. Without TLS."""
        if options.get("ssl") or options.get("sock") or self.net is None:
            raise RealIOError(f"a connection to {host}:{port} with {options}")
        protocol = protocol_factory()
        transport = await self.net.connect(cast("asyncio.Protocol", protocol), host, port)
        return transport, protocol

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> list[Any]:  # noqa: ANN401 - asyncio's
        """Every name is its own address."""
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
