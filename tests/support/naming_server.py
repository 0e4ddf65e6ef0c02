"""A server that passes for a Redis 8.8, which names the fields that a notification is about: a Redis behind a proxy.

What such a Redis would say on its channels, the test says. The documented form is all that is known of it here.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType

from bridge.commands.embedded import free_port

QUESTIONS: Mapping[bytes, bytes] = MappingProxyType({b"$6\r\nEgxehT\r\n": b"$5\r\nEgxeh\r\n"})
ANSWERS: Mapping[bytes, bytes] = MappingProxyType(
    {b"$5\r\nghxeE\r\n": b"$6\r\nghxeET\r\n", b"redis_version:8.2.": b"redis_version:8.8."}
)
"""What is changed on the way. Each comes in a packet with little else."""


@contextlib.asynccontextmanager
async def naming_fields(port: int) -> AsyncIterator[int]:
    """In front of the Redis at `port`: another port."""
    tasks = set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        its_reader, its_writer = await asyncio.open_connection("127.0.0.1", port)
        for one in (_pass(reader, its_writer, QUESTIONS), _pass(its_reader, writer, ANSWERS)):
            tasks.add(asyncio.create_task(one))

    front = free_port()
    server = await asyncio.start_server(serve, "127.0.0.1", front)
    try:
        yield front
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, changed: Mapping[bytes, bytes]) -> None:
    try:
        while data := await reader.read(1 << 20):
            for word, another in changed.items():
                data = data.replace(word, another)
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
