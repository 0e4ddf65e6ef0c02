"""The composition root: puts the parts together, runs them, and takes them down in the right order.

Shutting down: readiness goes → the source handles what it has received and stops → delivery drains the outbox → the
sink closes → the lease is released → Redis closes → HTTP last. A second signal ends the process at once: nothing is
lost by that, the next process goes on from the ledger and the outbox.
"""

import asyncio
import os
import signal
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bridge import __version__
from bridge.clock import Clock, SystemClock
from bridge.cloudevents import Encoder
from bridge.contracts import Sink
from bridge.delivery.loop import Delivery
from bridge.redis.source.cluster import Cluster
from bridge.redis.source.shards import Shards
from bridge.settings import Settings
from bridge.sinks import SinkEvents, create
from bridge.tasks import end, run_together
from bridge.telemetry.events import Telemetry
from bridge.telemetry.http import serve_http
from bridge.telemetry.systemd import notifying

DRAINED, FAILED = 0, 1
CLOSE_TIMEOUT = 5.0
"""Seconds for the sink and for the lease, each, after the drain."""


async def serve(settings: Settings) -> int:
    """Run the bridge until SIGTERM, SIGINT or SIGHUP. The exit status: 0 drained, 1 not drained in time.

    Raises BridgeError where it cannot work, and whatever else a part of it failed with.
    """
    telemetry = Telemetry()
    async with serve_http(settings, telemetry):
        instance = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        with notifying(os.environ):
            return await Service(settings, telemetry, SystemClock(), instance).run()


class Service:
    """The whole bridge. What differs between machines, processes and runs is given: clock, name, and maker of sinks."""

    def __init__(
        self,
        settings: Settings,
        telemetry: Telemetry,
        clock: Clock,
        instance: str,
        make_sink: Callable[[Settings, int, Clock, SinkEvents], Sink] = create,
    ) -> None:
        """`instance`: the name of this process, which no other one has. `make_sink`: see `bridge.sinks.create`."""
        self._settings = settings
        self._telemetry = telemetry
        source = Cluster if settings.redis_address().nodes else Shards
        self._source = source(settings, instance, clock, telemetry)
        self._sink = make_sink(settings, self._source.db, clock, telemetry)
        encoder = Encoder(settings.source, self._source.db, settings.content_mode)
        self._delivery = Delivery(self._source.outbox, self._sink, encoder, self._source.redis_ms, clock, telemetry)
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Work until stopped. Returns the exit status."""
        settings = self._settings
        self._telemetry.bridge_started(
            __version__, sink=str(settings.sink), keys=settings.keys, db=self._source.db, source=settings.source
        )
        with _signals(self._signalled):
            work = asyncio.create_task(
                run_together({"source": self._find(), "delivery": self._delivery.run()}), name="work"
            )
            stopping = asyncio.create_task(self._stopped(), name="stopping")
            drained = True
            try:
                await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
                try:
                    async with asyncio.timeout(settings.shutdown_timeout):
                        await work
                except TimeoutError:
                    drained = False
                if not self._stopping.is_set():
                    raise RuntimeError("the source and delivery ended without being asked to")
            finally:
                await end([work, stopping])
                await self._close()
        self._telemetry.bridge_stopped(self._source.outbox.depth, drained=drained)
        return DRAINED if drained else FAILED

    async def _find(self) -> None:
        """Find expirations until stopped; then nothing is added to the outbox any more."""
        await self._source.run()
        self._source.outbox.drain()

    async def _stopped(self) -> None:
        await self._stopping.wait()

    async def _close(self) -> None:
        for close in (self._sink.close, self._source.close):
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await close()
            except TimeoutError:
                self._telemetry.close_timed_out(close.__qualname__)

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
