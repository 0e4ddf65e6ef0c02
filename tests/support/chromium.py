"""A headless Chromium, driven by its DevTools protocol: started once, it shows pages in any size and colour scheme."""

import asyncio
import os
import shutil
import signal
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.servers import TOOLS

PATIENCE = 60.0
NOT_TO_BE_HAD = TOOLS.parent / "no-chromium"
"""`.ci/bootstrap` leaves this file where it could provide none."""
FLAGS = (
    "--headless",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--no-sandbox",  # it shows pages of our own only, and may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-breakpad",
    "--hide-scrollbars",
    "--no-proxy-server",
)


class Page:
    """One page, shown in one size and colour scheme."""

    def __init__(self, browser: "Browser", session: str) -> None:
        self._browser = browser
        self.session = session

    @property
    def faults(self) -> list[str]:
        """What the browser objects to: errors of the script, and what the policy of the page forbids."""
        return self._browser.faults.get(self.session, [])

    async def show(self, url: str) -> None:
        """Go there."""
        await self._call("Page.navigate", url=url)

    async def resize(self, width: int, height: int, scheme: str) -> None:
        """`scheme`: `light` or `dark`."""
        await self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        await self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def value(self, expression: str) -> Any:  # noqa: ANN401 - whatever JavaScript has
        """What an expression is now."""
        answer = await self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise ValueError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def picture(self, path: Path) -> None:
        """Save all of the page, not only what is in view, as a PNG."""
        answer = await self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(b64decode(answer["data"]))  # noqa: ASYNC240 - the file is small

    async def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        return await self._browser.call(method, self.session, **parameters)


class Browser:
    """The process."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.faults: dict[str, list[str]] = {}
        """By session."""

    async def page(self) -> Page:
        """A new one."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable", page.session)
        return page

    async def call(self, method: str, session: str = "", **parameters: object) -> dict[str, Any]:
        """What a method answers. Raises RuntimeError where the browser refuses it."""
        number = next(self._numbers)
        self._waiting[number] = answer = asyncio.get_running_loop().create_future()
        await self._socket.send_json(
            {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        )
        async with asyncio.timeout(PATIENCE):
            result: dict[str, Any] = await answer
        return result

    async def listen(self) -> None:
        """Hear what it answers, and what it finds fault with, until it ends."""
        async for message in self._socket:
            said = message.json()
            waiting = self._waiting.pop(said.get("id"), None)
            if waiting is not None and not waiting.done():
                if "error" in said:
                    waiting.set_exception(RuntimeError(said["error"]["message"]))
                else:
                    waiting.set_result(said["result"])
            elif said.get("method") in {"Runtime.exceptionThrown", "Log.entryAdded"}:
                self.faults.setdefault(said.get("sessionId", ""), []).append(str(said["params"]))


@asynccontextmanager
async def chromium(directory: Path) -> AsyncIterator[Browser]:
    """Start one, with its files in `directory`. Skips where there is none; fails in CI, if one can be had there."""
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(directory), "LANG": "C.UTF-8"}
    process = await asyncio.create_subprocess_exec(
        _program(),
        *FLAGS,
        f"--user-data-dir={directory / 'profile'}",
        env=environment,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE):
            url = await _address(process.stderr)
        drained = asyncio.create_task(process.stderr.read())
        async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
            browser = Browser(socket)
            listening = asyncio.create_task(browser.listen())
            try:
                yield browser
                await browser.call("Browser.close")
            finally:
                listening.cancel()
        await drained
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _program() -> str:
    path = os.pathsep.join([str(TOOLS), os.environ.get("PATH", "")])
    program = shutil.which("chromium", path=path) or shutil.which("chromium-browser", path=path)
    if program is None:
        missing = "NOT CHECKED: chromium is not installed (Debian: apt install chromium)"
        if os.environ.get("CI") == "true" and not NOT_TO_BE_HAD.exists():
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    return program


async def _address(said: asyncio.StreamReader) -> str:
    lines = []
    async for line in said:
        lines.append(line.decode(errors="replace"))
        if lines[-1].startswith("DevTools listening on "):
            return lines[-1].split()[-1]
    raise RuntimeError(f"chromium has ended: {''.join(lines)}")
