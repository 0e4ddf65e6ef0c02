"""A bridge whose log nobody reads, by a pipe that is full."""

import fcntl
import os
import subprocess
from pathlib import Path
from signal import SIGTERM

from tests.support.servers import Bridge, NatsServer, RedisServer, wait_until


async def test_a_log_that_nobody_reads_holds_up_neither_work_nor_the_end(
    redis_server: RedisServer, nats_server: NatsServer, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, b"-" * size)
    settings = {"BRIDGE_REDIS_URL": redis_server.url, "BRIDGE_NATS_URL": nats_server.url, "BRIDGE_LOG_LEVEL": "debug"}
    bridge = Bridge(settings)
    process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
        bridge.command(), env=bridge.environment(), cwd=tmp_path, stderr=writing
    )
    try:
        os.close(writing)

        async def ready() -> bool:
            try:
                return (await bridge.get("/readyz"))[0] == 200
            except OSError:
                return False

        await wait_until(ready, "readiness", 30)
        process.send_signal(SIGTERM)
        await wait_until(lambda: process.poll() is not None, "the end", 20)
        assert process.returncode == 0
        assert os.read(reading, 2 * size) == b"-" * size, "nothing more found its way into the pipe"
    finally:
        process.kill()
        process.wait()
        os.close(reading)
