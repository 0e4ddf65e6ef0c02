"""What a pool does with a connection that was lost while nothing used it."""

import asyncio
import socket
import struct
from pathlib import Path

import hiredis
from redis.asyncio import Redis

from bridge.clock import SystemClock
from bridge.limits import WireLimits
from bridge.redis.wire.endpoint import Endpoint
from bridge.settings import Settings
from tests.support.redis.commands import run, user_of
from tests.support.servers import RedisServer, wait_until

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of a socket that is reset when it is closed."""


class Yes:
    """A server that says yes to everything."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        commands = hiredis.Reader()
        try:
            while data := await reader.read(1 << 16):
                commands.feed(data)
                while commands.gets() is not False:
                    writer.write(b"+OK\r\n")
        finally:
            writer.close()

    def reset(self) -> None:
        for writer in self.writers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()


async def test_a_connection_that_was_reset_while_nothing_used_it_is_followed_by_another_one() -> None:
    server = Yes()
    listening = await asyncio.start_server(server.serve, "127.0.0.1")
    host, port = listening.sockets[0].getsockname()
    settings = Settings(redis_url=f"redis://{host}:{port}/0")
    client = Endpoint.of(settings, WireLimits(), SystemClock()).client()
    try:
        await client.execute_command("SET", "a", "b")  # type: ignore[no-untyped-call]
        idle = client.connection_pool._available_connections[0]
        server.reset()
        await wait_until(lambda: idle._reader is not None and idle._reader.exception() is not None)

        await client.execute_command("SET", "a", "b")  # type: ignore[no-untyped-call]

        assert len(server.writers) == 2
    finally:
        await client.aclose()
        listening.close()
        await wait_until(lambda: all(writer.is_closing() for writer in server.writers))


async def test_a_new_login_that_is_refused_is_tried_once_and_the_former_one_serves(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("right")
    async with user_of(redis_server) as user:
        await run(user, "ACL", "SETUSER", "ann", "on", ">right", "~*", "&*", "+@all")
        url = f"redis://ann@127.0.0.1:{redis_server.port}/0"
        settings = Settings(redis_url=url, redis_password_file=password)
        client = Endpoint.of(settings, WireLimits(), SystemClock()).bound().client()
        try:
            assert await run(client, "ACL", "WHOAMI") == b"ann"
            password.write_text("too early")
            await run(user, "ACL", "LOG", "RESET")
            await client.connection_pool.disconnect()
            assert await run(client, "ACL", "WHOAMI") == b"ann"
            assert [entry[b"count"] for entry in await _log(user)] == [1]
        finally:
            await client.aclose()


async def _log(user: Redis) -> list[dict[bytes, int]]:
    entries = await run(user, "ACL", "LOG")
    return [entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True)) for entry in entries]
