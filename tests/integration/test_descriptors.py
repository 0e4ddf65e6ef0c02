"""Few file descriptors: whoever reaches the HTTP port takes none that the bridge needs for its servers."""

import asyncio
import os
import resource
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGTERM

from tests.support.deployments.world import settings_for
from tests.support.redis.commands import run, user_of
from tests.support.servers import Bridge, NatsServer, RedisServer, wait_until

FEW = 64
SILENT = 200


@contextmanager
def silent(port: int) -> Iterator[None]:
    """Connections that say nothing, all at once, however many of them are taken."""
    with ExitStack() as stack:
        for _ in range(SILENT):
            one = stack.enter_context(socket.socket())
            one.settimeout(0)
            one.connect_ex(("127.0.0.1", port))
        yield


async def test_silent_clients_of_the_http_port_keep_the_bridge_neither_off_redis_nor_from_its_probes(
    redis_server: RedisServer, nats_server: NatsServer, tmp_path: Path
) -> None:
    bridge = Bridge(settings_for(redis_server, nats_server))
    log = tmp_path / "log"
    with log.open("wb") as written:
        process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            ["/bin/sh", "-c", f'ulimit -n {FEW}; exec "$0" "$@"', *bridge.command()],
            env=bridge.environment(),
            cwd=tmp_path,
            stderr=written,
        )
    try:

        async def is_ready() -> bool:
            try:
                return (await bridge.get("/readyz"))[0] == 200
            except OSError:
                return False

        await wait_until(is_ready, log.read_text)
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[0] == FEW
        async with user_of(redis_server) as user:
            for _ in range(3):
                with silent(bridge.http_port):
                    for kind in ("normal", "pubsub"):
                        await run(user, "CLIENT", "KILL", "TYPE", kind)
                    await asyncio.sleep(0.2)
                    await wait_until(is_ready, log.read_text)
        assert "library.failed" not in log.read_text()
        assert len(os.listdir(f"/proc/{process.pid}/fd")) < FEW  # noqa: PTH208 - names are enough
        process.send_signal(SIGTERM)
        await wait_until(lambda: process.poll() is not None, log.read_text)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
