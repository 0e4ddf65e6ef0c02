"""The demo's stage: a Valkey, a broker and two real bridges, as processes of its own.

Guarantees: everything lies in temporary directories and listens on free loopback ports; leaving the `with` block, in
whichever way, leaves no process and no file behind. On Linux the processes end with this one even if it is killed.
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import datetime
from http import HTTPStatus
from typing import Self

from aiohttp import ClientError, ClientSession, ClientTimeout
from pydantic import SecretStr

from bridge.commands.demo.broker import Broker
from bridge.commands.demo.errors import DemoError
from bridge.commands.embedded import EmbeddedValkey, Process, free_port
from bridge.settings import Settings

PATIENCE = 30.0
"""Seconds to wait for what takes a few at most: a machine may be slow."""
POLL = 0.02
HTTP_SECONDS = 2.0


class BridgeProcess(Process):
    """`python -m bridge run`, with the given settings and no others."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        super().__init__("bridge")
        self._settings = settings

    def command(self) -> Sequence[str]:
        """See `Process`."""
        return [sys.executable, "-m", "bridge", "run"]

    def environment(self) -> Mapping[str, str]:
        """See `Process`. It imports what we import, though its working directory is another one."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
        return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **self._settings}


class Stage:
    """All processes: `start()` them inside the `with` block."""

    def __init__(self, broker: Broker) -> None:
        self.valkey = EmbeddedValkey()
        self.broker = broker
        self.http_port = free_port()
        self.settings = Settings(redis_url=SecretStr(f"{self.valkey.url}/0"))
        """How to reach Redis: the bridge's own settings."""
        self.standby_port = free_port()
        self.bridge, self.standby = (
            BridgeProcess(
                {
                    "BRIDGE_REDIS_URL": f"{self.valkey.url}/0",
                    "BRIDGE_HTTP_PORT": str(port),
                    "BRIDGE_LOG_FORMAT": "json",
                    **broker.settings(),
                }
            )
            for port in (self.http_port, self.standby_port)
        )
        self.takeover: tuple[float, bool] = (0.0, False)
        """When the other bridge took over, in Unix seconds, and whether without a gap."""
        self._open = ExitStack()

    def require(self) -> None:
        """Raises Unavailable: a server's program is not installed."""
        for server in (self.valkey, self.broker.server):
            server.program()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    async def start(self) -> None:
        """Start all; return when the first bridge is ready. Raises StartFailed or DemoError."""
        for server in (self.valkey, self.broker.server):
            self._open.callback(server.close)
            with closing(server.starting()) as steps:
                for _ in steps:
                    await asyncio.sleep(POLL)
        self._open.enter_context(self.bridge)
        await self.ready()
        self._open.enter_context(self.standby)

    async def until(self, condition: Callable[[], Awaitable[object]], what: str) -> None:
        """Return when `condition` is true. Raises DemoError: it did not become true, or the bridge ended."""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    if await condition():
                        return
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise DemoError(f"gave up after {PATIENCE:g} s: {what}. {self._bridge_log()}") from None

    async def ready(self) -> None:
        """Return when the bridge is ready. Raises DemoError."""

        async def is_ready() -> bool:
            if not self.bridge.running:
                raise DemoError(f"the bridge ended with status {self.bridge.returncode}. {self._bridge_log()}")
            return (await self.get("/readyz"))[0] == HTTPStatus.OK

        await self.until(is_ready, "the bridge is not ready")

    async def stands_by(self) -> bool:
        """Whether the other bridge could go on where the first one is."""
        status, text = await self.get("/status.json", self.standby_port)
        return status == HTTPStatus.OK and all(shard["standby_hot"] for shard in json.loads(text)["shards"])

    async def taken_over(self) -> bool:
        """Whether the other bridge has taken over, or is seen to have; then `takeover` says how."""
        for line in self.standby.log(lines=100).splitlines():
            if "standby.promoted" in line:
                said = json.loads(line)
                self.takeover = datetime.fromisoformat(said["timestamp"]).timestamp(), said["hot"]
                return True
        return False

    async def retried(self) -> int:
        """How many messages this bridge process has sent again; 0 where it does not say."""
        _, text = await self.get("/metrics")
        found = re.search(r"^bridge_retried_messages_total (\S+)$", text, re.MULTILINE)
        return int(float(found[1])) if found else 0

    async def get(self, path: str, port: int | None = None) -> tuple[int, str]:
        """Status and text of the answer of a bridge, mostly the first one, over HTTP; 0 where there is none."""
        try:
            async with (
                ClientSession(timeout=ClientTimeout(HTTP_SECONDS)) as http,
                http.get(f"http://127.0.0.1:{port or self.http_port}{path}") as response,
            ):
                return response.status, await response.text()
        except (ClientError, TimeoutError):
            return 0, ""

    def _bridge_log(self) -> str:
        return f"The bridge's log ends with:\n{self.bridge.log(lines=15)}"
