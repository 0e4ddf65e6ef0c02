"""Bridge processes of the simulated world: the whole service, unmodified, in a process that can be killed.

This is the one place that knows how `bridge.service` is put together.
"""

import asyncio
import signal
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, cast

import structlog
from redis.asyncio.connection import AbstractConnection

from bridge.clock import SystemClock
from bridge.contracts import Sink
from bridge.errors import BridgeError
from bridge.limits import Limits
from bridge.service import Service, World
from bridge.settings import Settings
from bridge.sinks import create
from bridge.telemetry.events import Telemetry
from tests.simulation.broker import Broker, SimSink
from tests.simulation.loop import OWNER, SimLoop, SimProcess
from tests.simulation.network import Network

Tell = Callable[[str, str], None]
"""Who, and what."""


def _place(connection: AbstractConnection) -> int:
    """A hash that does not depend on where in memory it lies: a pool keeps its connections in a set, in that order."""
    place = connection.__dict__.get("place")
    if place is None:
        place = connection.__dict__["place"] = cast("SimLoop", asyncio.get_running_loop()).serial()
    return cast("int", place)


AbstractConnection.__hash__ = _place  # type: ignore[method-assign,assignment]


class SimClock(SystemClock):
    """The loop's time; it also waits by the loop's timers."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._loop.time()

    async def tick(self, seconds: float) -> None:
        """See `Clock`. All bridges have this clock: they must not look at things at the same moments."""
        await self.sleep(seconds)


class Bridge:
    """One bridge, through all its lives."""

    def __init__(
        self, name: str, settings: Settings, limits: Limits, network: Network, broker: Broker, tell: Tell
    ) -> None:
        self.name = name
        self.lives = 0
        self.process: SimProcess | None = None
        self.telemetry: Telemetry | None = None
        self.failures: list[BaseException] = []
        """What it has ended with, and may not."""
        self._asked = False
        """Whether this process was asked to end."""
        self._service: Service | None = None
        self._settings = settings
        self._limits = limits
        self._network = network
        self._broker = broker
        self._tell = tell

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self.process is not None and self.process.alive

    @property
    def ready(self) -> bool:
        """What /readyz says."""
        return self.running and self.telemetry is not None and not self.telemetry.health.reasons

    @property
    def reasons(self) -> dict[str, str]:
        """Why it is not."""
        return {} if self.telemetry is None else self.telemetry.health.reasons

    def start(self) -> None:
        """A new process, with a name of its own."""
        if self.running:
            return
        self.lives += 1
        self._asked = False
        self.process = process = SimProcess(f"{self.name}{self.lives}", self._network.loop)
        self._tell(process.name, "starts")
        process.run(self._serve(process))

    def relieve(self) -> None:
        """Its logins are about to end: each source needs another session."""
        if self.running and self._service is not None:
            self._tell(self.process.name if self.process else self.name, "needs another session")
            for source in self._service._source._sources:  # type: ignore[attr-defined]
                source._primary.endpoint.binding.login_ends(self._network.loop.time())

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None and self.process.alive:
            self._tell(self.process.name, "is killed")
            self._network.loop.kill(self.process)
            self._network.bury(self.process)

    def stop(self) -> None:
        """Ask it to end; asked again, it ends at once, as with `os._exit`."""
        if self._asked:
            self.kill()
        elif self.running and self.process is not None:
            self._asked = True
            self.process.signal(signal.SIGTERM)

    @property
    def _sink(self) -> Callable[..., Sink]:
        """What makes it: the real one where its server is simulated."""
        return create if self._broker.kind == "redis" else lambda *_: SimSink(self._broker)

    async def _serve(self, process: SimProcess) -> None:
        clock = SimClock(self._network.loop)
        self.telemetry = telemetry = Telemetry(clock)
        try:
            world = World(clock, process.name, self._limits, self._sink)
            self._service = service = Service(self._settings, telemetry, world)
            status = await service.run()
            self._tell(process.name, f"ends with {status}")
        except BridgeError as error:  # the command line says it, and a supervisor starts the process again
            self._tell(process.name, f"ends: {error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            if process.alive:
                self.failures.append(error)
                self._tell(process.name, f"fails: {error!r}")
        finally:
            process.alive = False
            self._network.bury(process)


def log_to(tell: Tell, level: int = 20) -> None:
    """Send what the bridges log there."""

    def capture(_: Any, name: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:  # noqa: ANN401 - structlog's
        owner = OWNER.get()
        if owner is not None and owner.alive:
            what = event.pop("event")
            tell(owner.name, " ".join([name, what, *(f"{key}={value}" for key, value in event.items())]))
        raise structlog.DropEvent

    structlog.configure(
        processors=[capture],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
