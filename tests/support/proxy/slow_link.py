"""A link of little bandwidth between a bridge and its server."""

import asyncio
from contextlib import suppress
from typing import Self

CHUNK = 16 * 1024


class SlowLink:
    """Relays connections to a loopback port. In each direction, all of them share the bandwidth.

    What waits for its turn fills the buffers of the sender, as on a real link.
    """

    def __init__(self, target: int, bytes_per_second: float) -> None:
        self.port = 0
        self._target = target
        self._seconds_per_byte = 1 / bytes_per_second
        self._turns = asyncio.Lock(), asyncio.Lock()
        self._tasks = set[asyncio.Task[None]]()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        far = writer
        try:
            from_server, far = await asyncio.open_connection("127.0.0.1", self._target, limit=CHUNK)
            ways = (
                asyncio.create_task(self._carry(reader, far, self._turns[0])),
                asyncio.create_task(self._carry(from_server, writer, self._turns[1])),
            )
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # the server is down, or the link is closed
        finally:
            for end in (writer, far):
                end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, turns: asyncio.Lock) -> None:
        with suppress(OSError):
            while chunk := await reader.read(CHUNK):
                async with turns:
                    await asyncio.sleep(len(chunk) * self._seconds_per_byte)
                    writer.write(chunk)
                    await writer.drain()
