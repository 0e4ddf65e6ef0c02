"""`/livez`, `/readyz`, `/metrics`. Bears no control, shows no key.

Served from the bridge's own event loop, on purpose: `/livez` answers only while that loop turns.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from bridge.errors import Refused
from bridge.settings import Settings
from bridge.telemetry.events import Telemetry


@asynccontextmanager
async def serve_http(settings: Settings, telemetry: Telemetry) -> AsyncIterator[None]:
    """Serve while the context lasts; not at all where the port is 0. Raises Refused where the port is taken."""
    if not settings.http_port:
        yield
        return
    runner = web.AppRunner(_app(telemetry), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.http_host, settings.http_port)
        try:
            await site.start()
        except OSError as error:
            raise Refused(
                f"BRIDGE_HTTP_PORT: cannot listen on {settings.http_host}:{settings.http_port}"
                f" ({error.strerror or error})",
                "choose a free port, or 0 for none",
            ) from error
        yield
    finally:
        await runner.cleanup()


def _app(telemetry: Telemetry) -> web.Application:
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

    app = web.Application()
    app.add_routes([web.get("/livez", live), web.get("/readyz", ready), web.get("/metrics", metrics)])
    return app
