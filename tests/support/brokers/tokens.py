"""Tokens that a Kafka of the tests takes, and a token service that gives them."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

SECRET = "hunter2"
CLIENT = "client of the test"
PROVIDER = "tests.support.brokers.tokens:OWN"


def token(subject: str = "ann", seconds: float = 3600) -> str:
    """An unsigned one, good for that long."""
    now = time.time()
    parts = {"alg": "none"}, {"sub": subject, "iat": now - 1, "exp": now + seconds}
    return "".join(f"{base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip('=')}." for part in parts)


class Own:
    """A provider, as a user writes one."""

    def __init__(self) -> None:
        self.gives: object = ""
        """An exception is raised."""
        self.adds: dict[str, str] = {}

    def token(self) -> object:
        """See aiokafka."""
        if isinstance(self.gives, Exception):
            raise self.gives
        return self.gives

    def extensions(self) -> dict[str, str]:
        """See aiokafka."""
        return self.adds


OWN = Own()


class TokenService:
    """One that knows one client."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, str]] = []
        """What it was asked for, by whom."""
        self.seconds = 3600.0
        """How long its tokens are good for."""
        self.answer: tuple[int, str] | None = None
        """Status and body of another answer than a token."""
        self.answers = asyncio.Event()
        """Else it does not, until its end."""
        self.answers.set()

    async def _serve(self, request: web.Request) -> web.Response:
        login = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        self.asked.append({**{name: str(value) for name, value in (await request.post()).items()}, "login": login})
        await self.answers.wait()
        if self.answer is not None:
            status, body = self.answer
            return web.Response(status=status, text=body, headers={"Location": f"{self.url}/elsewhere"})
        if login != f"client%20of%20the%20test:{SECRET}":
            return web.json_response({"error": "invalid_client", "error_description": login}, status=401)
        return web.json_response({"access_token": token(seconds=self.seconds), "expires_in": self.seconds})

    @classmethod
    @asynccontextmanager
    async def serving(cls) -> AsyncIterator["TokenService"]:
        """One that is there until the end of the block."""
        service = cls()
        app = web.Application()
        app.router.add_post("/token", service._serve)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        service.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
        try:
            yield service
        finally:
            service.answers.set()
            await runner.cleanup()
