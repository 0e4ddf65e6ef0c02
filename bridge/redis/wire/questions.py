"""One question to several servers in parallel: a frozen one does not delay the others' answers."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Hashable
from typing import Generic, TypeVar

from bridge.clock import Clock
from bridge.tasks import end

Server = TypeVar("Server", bound=Hashable)
Reply = TypeVar("Reply")


class Questions(Generic[Server, Reply]):
    """See the module. A server that has not answered in time is not asked again: its answer comes with a later call."""

    def __init__(
        self, question: Callable[[Server], Coroutine[object, object, Reply | Exception]], clock: Clock, grace: float
    ) -> None:
        """`question` limits its own time, and returns errors. `grace`: seconds for the rest, once one has answered."""
        self._question = question
        self._clock = clock
        self._grace = grace
        self._open: dict[Server, asyncio.Task[Reply | Exception]] = {}

    async def ask(self, servers: Collection[Server]) -> dict[Server, Reply | Exception]:
        """The answers so far: when all have answered, or some time after the first one did."""
        for server in servers:
            if server not in self._open:
                self._open[server] = asyncio.create_task(self._question(server), name=f"question to {server}")
        asked = dict(self._open)
        waiting = {asked[server] for server in servers}
        while waiting:
            await self._clock.first(waiting, None)
            if any(task.done() and not isinstance(task.result(), Exception) for task in waiting):
                await self._clock.all(waiting, self._grace)
                break
            waiting = {task for task in waiting if not task.done()}
        for server, task in asked.items():
            if task.done() and self._open.get(server) is task:
                del self._open[server]
        return {server: task.result() for server, task in asked.items() if task.done()}

    async def close(self) -> None:
        """Stop asking."""
        await end(self._open.values())
        self._open.clear()
