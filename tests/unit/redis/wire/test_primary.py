"""When a server is left: as soon as its finder names another one, however it behaves itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridge.limits import WireLimits
from bridge.redis.wire.endpoint import Address, Endpoint
from bridge.redis.wire.primary import Primary
from bridge.settings import Settings

NEVER = 3600.0


class Named:
    """A finder that says what the test says, and says so at once."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.changed = asyncio.Event()

    async def primary(self) -> Address:
        """See `Finder`."""
        return self.address

    async def news(self, seconds: float) -> None:
        """See `Finder`."""
        await self.changed.wait()

    async def close(self) -> None:
        """See `Finder`."""


@asynccontextmanager
async def server(role: bytes | None, asked: asyncio.Event | None = None) -> AsyncIterator[Address]:
    """One that says what it is; None: it is frozen. `asked` is set with the first question."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            if asked is not None:
                asked.set()
            if role is None:
                continue
            for word in data.split(b"\r\n"):
                if word == b"CLIENT":
                    writer.write(b"+OK\r\n")
                elif word == b"INFO":
                    info = b"# Replication\r\nrole:%b\r\n" % role
                    writer.write(b"$%d\r\n%b\r\n" % (len(info), info))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield "127.0.0.1", listening.sockets[0].getsockname()[1]


async def test_a_frozen_primary_holds_up_no_look_at_who_is_named_instead() -> None:
    frozen = asyncio.Event()
    async with server(None, frozen) as old, server(b"master") as new:
        limits = WireLimits(role=NEVER, command=NEVER, primary_check=0.001)
        settings = Settings(redis_url=f"redis+sentinel://127.0.0.1:{old[1]}/service")
        finder = Named(old)
        primary = Primary(Endpoint.of(settings, limits).at(old), finder)
        leaving = asyncio.create_task(primary.lost())
        await frozen.wait()
        finder.address = new
        finder.changed.set()
        assert f"names another primary: 127.0.0.1:{new[1]}" in await leaving
        await primary.close()


async def test_a_server_that_is_no_longer_a_primary_is_left_without_a_finder() -> None:
    async with server(b"slave") as address:
        url = f"redis://127.0.0.1:{address[1]}"
        primary = Primary(Endpoint.of(Settings(redis_url=url), WireLimits(primary_check=0.001)))
        assert "no longer a primary (role slave)" in await primary.lost()
        await primary.close()
