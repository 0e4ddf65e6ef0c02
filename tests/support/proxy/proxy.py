"""The proxy itself: it listens, connects to the server, and passes on what the test wants of its connections."""

import asyncio
import contextlib
from typing import Self

from bridge.commands.embedded import free_port
from tests.support.proxy.connection import Connection, Faults, Where, everybody, reset
from tests.support.proxy.frames import Protocol


class Proxy(Faults):
    """Listens on a loopback port of its own, which stays the same, and forwards to `127.0.0.1:target`."""

    def __init__(self, target: int, protocol: Protocol = Protocol.RAW, *, delay: float = 0.0) -> None:
        super().__init__(protocol, delay)
        self.target = target
        self.port = free_port()
        self.connections: list[Connection] = []
        """The open ones, oldest first."""
        self.barred: set[str] = set()
        """The addresses of clients that may not connect."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # a transport closes its socket in the next turn of the loop

    async def accept(self) -> None:
        """Listen (again)."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def refuse(self) -> None:
        """Stop listening: who connects now is refused. Open connections stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut(self, where: Where = everybody) -> None:
        """Reset connections, on both sides. What is under way is lost."""
        for connection in filter(where, list(self.connections)):
            connection.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        source = writer.get_extra_info("peername")[0]
        if source in self.barred:
            reset(writer)
            return
        try:
            server = await asyncio.open_connection("127.0.0.1", self.target)
        except (OSError, asyncio.CancelledError):  # the server is down, or the proxy is being closed
            reset(writer)
            return
        connection = Connection(self, task, source, (reader, writer), server)
        self.connections.append(connection)
        try:
            with contextlib.suppress(asyncio.CancelledError):  # cut, or the proxy is closed; asyncio would log it
                await connection.run()
        finally:
            self.connections.remove(connection)
