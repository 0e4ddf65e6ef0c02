"""`/livez`, `/readyz`, `/metrics`; `/` and `/status.json`, the status page. Bears no control, shows no key.

Served from the bridge's own event loop, on purpose: `/livez` answers only while that loop turns.

Whoever reaches the port can hold only so much of the process: a few connections, each for a few seconds, for one
request of a few kilobytes. One connection more than allowed ends the oldest, so that idle ones never keep a probe out.
What clients get wrong is answered, where it can be, and not logged.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from bridge.errors import Refused
from bridge.settings import Settings
from bridge.telemetry.events import Telemetry
from bridge.telemetry.page.document import Document
from bridge.telemetry.page.served import PROTECTED, Page
from bridge.telemetry.page.window import Window

BACKLOG = 128
"""Connections that wait in the kernel."""
AT_ONCE = 2
"""Accepted in one turn of the event loop, which takes some turns to open and to end one: each of those is a descriptor
more than `Limits.connections`. asyncio accepts as many at once as it has the kernel keep, and logs each failure."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may take of the process."""

    connections: int = 16
    """A descriptor each, at the same time."""
    seconds: float = 10.0
    """For a connection, from its beginning to its end."""
    request_bytes: int = 16_384


@asynccontextmanager
async def serve_http(settings: Settings, telemetry: Telemetry, limits: Limits | None = None) -> AsyncIterator[None]:
    """Serve while the context lasts; not at all where the port is 0. Raises Refused where it cannot listen."""
    if not settings.http_port:
        yield
        return
    window = Window(telemetry.metrics, telemetry.history.clock)
    document = Document(telemetry, window, settings)
    runner = web.AppRunner(_app(telemetry, document), access_log=None, logger=_logger())
    await runner.setup()
    guard = _Guard(runner, limits or Limits())
    try:
        try:
            server = await _listen(settings.http_host, settings.http_port, guard)
        except OSError as error:
            raise Refused(
                f"BRIDGE_HTTP_PORT: cannot listen on {settings.http_host}:{settings.http_port}"
                f" ({error.strerror or error})",
                "choose a free port, or 0 for none",
            ) from error
        try:
            with window.sampling():
                yield
        finally:
            server.close()
            guard.close()
    finally:
        await runner.cleanup()


async def _listen(host: str, port: int, guard: "_Guard") -> asyncio.Server:
    server = await _accepting(host, port, guard)
    for listening in server.sockets:
        with socket.socket(fileno=os.dup(listening.fileno())) as same:
            same.listen(BACKLOG)
    return server


async def _accepting(host: str, port: int, guard: "_Guard") -> asyncio.Server:
    loop = asyncio.get_running_loop()
    if host == "::" and socket.has_dualstack_ipv6():
        # asyncio would have it serve IPv6 only.
        both = socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=True)
        return await loop.create_server(guard.connection, sock=both, backlog=AT_ONCE)
    return await loop.create_server(guard.connection, host, port, backlog=AT_ONCE)


class _Guard:
    """Holds the connections, the oldest first, to the limits."""

    def __init__(self, runner: web.AppRunner, limits: Limits) -> None:
        self._runner = runner
        self.limits = limits
        self._open: dict[_Connection, None] = {}

    def connection(self) -> "_Connection":
        """A new one."""
        server = self._runner.server
        if server is None:
            raise RuntimeError("the HTTP server is not set up")
        return _Connection(server(), self)

    def opened(self, connection: "_Connection") -> None:
        self._open[connection] = None
        if len(self._open) > self.limits.connections:
            next(iter(self._open)).abort()

    def closed(self, connection: "_Connection") -> None:
        self._open.pop(connection, None)

    def close(self) -> None:
        """End all."""
        for connection in list(self._open):
            connection.abort()


class _Connection(asyncio.Protocol):
    """One client: what it sends goes to the library's own protocol, within the limits."""

    def __init__(self, inner: asyncio.Protocol, guard: _Guard) -> None:
        self._inner = inner
        self._guard = guard
        self._room = guard.limits.request_bytes
        self._transport: asyncio.BaseTransport
        self._end: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._end = asyncio.get_running_loop().call_later(self._guard.limits.seconds, self.abort)
        self._inner.connection_made(transport)
        self._guard.opened(self)

    def data_received(self, data: bytes) -> None:
        self._room -= len(data)
        if self._room < 0:
            self.abort()
        else:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._end.cancel()
        self._guard.closed(self)
        self._inner.connection_lost(error)

    def abort(self) -> None:
        """End it now, whatever is under way."""
        self._guard.closed(self)
        if isinstance(self._transport, asyncio.Transport):
            self._transport.abort()


def _logger() -> logging.Logger:
    """The library's own, without what is the client's fault."""
    logger = logging.getLogger("aiohttp.server")
    logger.addFilter(_is_our_fault)
    return logger


def _is_our_fault(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _app(telemetry: Telemetry, document: Document) -> web.Application:
    async def live(_: web.Request) -> web.Response:
        return web.json_response({"status": "live"})

    async def ready(_: web.Request) -> web.Response:
        reasons = telemetry.health.reasons
        if reasons:
            return web.json_response({"status": "not ready", "reasons": reasons}, status=503)
        return web.json_response({"status": "ready"})

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(telemetry.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    shown = Page.read()

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=shown.text, content_type="text/html", headers=shown.headers)

    async def status(_: web.Request) -> web.Response:
        return web.json_response(document.status(), headers=PROTECTED)

    app = web.Application()
    app.add_routes([web.get("/livez", live), web.get("/readyz", ready), web.get("/metrics", metrics)])
    app.add_routes([web.get("/", page), web.get("/status.json", status)])
    app.on_response_prepare.append(_last)
    return app


async def _last(_: web.Request, response: web.StreamResponse) -> None:
    """A connection is for one request."""
    response.force_close()
    response.headers["Connection"] = "close"  # the library has made the headers by now
