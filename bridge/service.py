"""The composition root: puts the parts together, runs them, and takes them down in the right order.

Shutting down: readiness goes → the source handles what it has received and stops → delivery drains the outbox → its
session with the broker is closed → the lease is released → Redis closes → HTTP last. A second signal ends the process
at once: nothing is lost by that, the next process goes on from the ledger and the outbox.
"""

import asyncio
import os
import signal
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

from bridge import __version__
from bridge.broker_state import BrokerState
from bridge.clock import Clock, SystemClock
from bridge.cloudevents import Encoder
from bridge.contracts import Sink, Source
from bridge.delivery.context import Context
from bridge.delivery.loop import Delivery
from bridge.limits import Limits
from bridge.redis.epoch.shard import Runtime
from bridge.redis.source.cluster import Cluster
from bridge.redis.source.shards import Shards
from bridge.settings import Settings, places
from bridge.sinks import SinkEvents, create
from bridge.tasks import end, in_thread, run_together
from bridge.telemetry.events import Telemetry
from bridge.telemetry.systemd import notifying
from bridge.telemetry.tracing import Tracer, Untraceable, tracer_of

DRAINED, FAILED = 0, 1


async def serve(settings: Settings, limits: Limits | None = None) -> int:
    """Run the bridge until SIGTERM, SIGINT or SIGHUP. The exit status: 0 drained, 1 not drained in time.

    `limits`: the usual ones, unless a test has others. Raises BridgeError where it cannot work, and whatever else a
    part of it failed with.
    """
    instance = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    telemetry = Telemetry(instance=instance)
    async with _http(settings, telemetry):
        with notifying(os.environ):
            world = World(SystemClock(), instance, limits or Limits(), environ=os.environ)
            return await Service(settings, telemetry, world).run()


def _http(settings: Settings, telemetry: Telemetry) -> AbstractAsyncContextManager[None]:
    if not settings.http_port:
        return nullcontext()
    from bridge.telemetry.http import serve_http  # noqa: PLC0415 - it takes a third of all imports

    return serve_http(settings, telemetry)


@dataclass(frozen=True, slots=True)
class World:
    """What differs between machines, processes and runs."""

    clock: Clock
    instance: str
    """The name of this process, which no other one has."""
    limits: Limits
    make_sink: Callable[[Settings, int, Clock, Limits, SinkEvents], Sink] = create
    """See `bridge.sinks.create`."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Where `OTEL_*` variables may be."""


class Service:
    """The whole bridge."""

    def __init__(self, settings: Settings, telemetry: Telemetry, world: World) -> None:
        clock, limits = world.clock, world.limits
        self._settings = settings
        self._limits = limits
        self._telemetry = telemetry
        self._clock = clock
        source, broker = Cluster if settings.redis_address().nodes else Shards, BrokerState()
        self._source: Source = source(Runtime(settings, world.instance, clock, limits, broker), telemetry)
        sink = world.make_sink(settings, self._source.db, clock, limits, telemetry)
        tracer = self._tracer = self._make_tracer(world.environ)
        traceparent = None if tracer is None else tracer.traceparent
        encoder = Encoder(settings.source, self._source.db, settings.content_mode, traceparent)
        context = Context(
            clock,
            limits.delivery,
            telemetry,
            self._source.redis_ms,
            broker,
            tracer,
            settings.stuck_seconds,
            values=settings.values is not None,
        )
        self._delivery = Delivery(self._source.outbox, sink, encoder, context)
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Work until stopped. Returns the exit status."""
        settings = self._settings
        self._telemetry.bridge_started(
            __version__, sink=str(settings.sink), keys=settings.keys, db=self._source.db, source=settings.source
        )
        self._telemetry.bridge_configured(*places(settings))
        if settings.values or settings.fields:
            self._telemetry.bridge_extended(settings.values or [], settings.fields or [])
        with _signals(self._signalled):
            work = asyncio.create_task(
                run_together({"source": self._source.run(), "delivery": self._delivery.run()}), name="work"
            )
            stopping = asyncio.create_task(self._stopped(), name="stopping")
            drained = True
            try:
                await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
                try:
                    async with self._clock.timeout(settings.shutdown_timeout):
                        await work
                except TimeoutError:
                    drained = False
                if not self._stopping.is_set():
                    raise RuntimeError("the source and delivery ended without being asked to")
            finally:
                await end([work, stopping])
                await self._close()
        self._telemetry.bridge_stopped(self._source.waiting, drained=drained)
        return DRAINED if drained else FAILED

    def _make_tracer(self, environ: Mapping[str, str]) -> Tracer | None:
        """None where no traces are wanted, or none can be made: expirations do not wait for that."""
        settings = self._settings
        try:
            tracer = tracer_of(environ, source=settings.source, db=self._source.db, sink=str(settings.sink))
        except Untraceable as error:
            self._telemetry.tracing_failed(str(error))
            return None
        if tracer is not None:
            self._telemetry.tracing_started()
        return tracer

    async def _stopped(self) -> None:
        await self._stopping.wait()

    async def _close(self) -> None:
        parts = {"delivery": self._delivery.close, "source": self._source.close}
        if self._tracer is not None:
            parts["traces"] = partial(in_thread, self._tracer.close)
        for what, close in parts.items():
            try:
                async with self._clock.timeout(self._limits.close):
                    await close()
            except TimeoutError:
                self._telemetry.close_timed_out(what)

    def _signalled(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            os._exit(128 + number)  # the second signal: at once
        self._telemetry.bridge_signalled(number.name)
        self._stopping.set()
        self._source.stop()


@contextmanager
def _signals(handle: Callable[[signal.Signals], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # `nohup` means it
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
