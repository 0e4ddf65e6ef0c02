"""`expiry-bridge status --watch`, on a terminal."""

import asyncio
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from redis import Redis

from tests.support.servers import ROOT, Bridge, NatsServer, RedisServer, wait_until

KEY = "share:of-a-person"


@asynccontextmanager
async def watched(settings: dict[str, str]) -> AsyncIterator[tuple[asyncio.subprocess.Process, Callable[[], str]]]:
    """`status --watch --show-keys` on a terminal of 110 columns; and what that has shown so far."""
    terminal, its_end = pty.openpty()
    os.set_blocking(terminal, False)
    size = {"COLUMNS": "110", "LINES": "40", "TERM": "xterm", "NO_COLOR": "1"}
    environment = {**os.environ, **size, "PYTHONPATH": str(ROOT), **settings}
    command = (sys.executable, "-m", "bridge", "status", "--watch", "--show-keys")
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=its_end, stderr=its_end)
    os.close(its_end)
    shown = bytearray()

    def text() -> str:
        with suppress(BlockingIOError, OSError):  # nothing new; the process has ended
            while chunk := os.read(terminal, 65536):
                shown.extend(chunk)
        return shown.decode(errors="replace")

    try:
        yield process, text
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(terminal)


@pytest.mark.slow
async def test_a_live_view_goes_on_through_changes_and_outages_until_it_is_interrupted(
    redis_kind: type[RedisServer], nats_server: NatsServer
) -> None:
    with redis_kind() as redis_server:
        servers = {"BRIDGE_REDIS_URL": redis_server.url, "BRIDGE_NATS_URL": nats_server.url}
        async with Bridge(servers) as bridge:
            await bridge.ready()
            settings = {**servers, "BRIDGE_HTTP_PORT": str(bridge.http_port)}
            async with watched(settings) as (process, text):
                await wait_until(lambda: "0 keys" in text(), text, 30)
                with Redis(port=redis_server.port) as user:
                    user.set(KEY, "", ex=1000)
                    await wait_until(lambda: re.search(rf"next to expire +in .*: {KEY}", text()), text)
                    user.set("brief", "", px=20)
                await wait_until(lambda: re.search(r"lag +p50 .*, in the last ", text()), text)
                await wait_until(lambda: re.search(r"published last +.* after its deadline: brief", text()), text)
                assert re.search(r"published +\d+, \d+\.\d/s; ", text())
                redis_server.kill()
                await wait_until(lambda: f"Redis at 127.0.0.1:{redis_server.port}: " in text(), text)
                seen = len(text())
                redis_server.start()
                await wait_until(lambda: "deadline ledger" in text()[seen:], text)
                process.send_signal(signal.SIGINT)
                assert await process.wait() == 130
                assert "\x1b[?25h" in text()[seen:]  # the cursor is back
                assert "Traceback" not in text()


async def test_a_live_view_is_refused_where_there_is_no_terminal(redis_server: RedisServer) -> None:
    with Bridge({"BRIDGE_REDIS_URL": redis_server.url}, "status", "--watch") as command:
        assert await command.exited() == 2
        assert command.log().splitlines() == ["status --watch needs a terminal; for a program there is --json"]
        assert command.output() == ""
