"""The frame of a session: its work, its watches, and its single end, after which everything is given back.

Guarantees: the end comes once, for a reason that stays. It cancels what is under way and the watches, waits until they
have ended, and only then gives back what they use. A watch that fails ends the session. So do work and a watch that a
library cancels, by a future of its own: whoever publishes takes NotConnected for the end.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

from bridge.errors import NotConnected
from bridge.sinks.session_end import SessionEnd
from bridge.tasks import end


class SessionLife:
    """For sessions whose work is tasks that may be cancelled at any moment, or can be abandoned by a call."""

    def __init__(
        self,
        name: str,
        broker: str,
        give_back: Callable[[], Awaitable[None]],
        abandon: Callable[[], None] = lambda: None,
    ) -> None:
        """`name`: for its tasks. `broker`: what it connects to, in words.

        Whatever ends the session, `abandon` is called at once, for work that does not `run` here; then `give_back`,
        when all tasks have ended. Each is called once.
        """
        self._name = name
        self._broker = broker
        self._give_back = give_back
        self._abandon = abandon
        self._end = SessionEnd()
        self._working: set[asyncio.Task[None]] = set()
        """Tasks that the end of the session cancels."""
        self._watches: list[asyncio.Task[None]] = []
        self._disposal: asyncio.Task[None] | None = None

    async def begin(self, work: Coroutine[object, object, None]) -> None:
        """`run` the work that opens the session. Raises what that raises; then everything is given back."""
        try:
            await self.run(work, "start")
        except BaseException:
            await self.close()
            raise

    async def run(self, work: Coroutine[object, object, None], name: str) -> None:
        """Do the work in a task of its own, while the session lasts. Raises what the work raises.

        Raises NotConnected if the session has ended.
        """
        if self._end.reason is not None:
            work.close()
            self.raise_if_ended()
        task = asyncio.create_task(work, name=f"{self._name}-{name}")
        self._working.add(task)
        try:
            await asyncio.wait([task])
        finally:
            self._working.discard(task)
            if not task.done():
                await end([task])
        if task.cancelled():
            self.end(f"{task.get_name()} was cancelled")
            raise self.ended_error()
        task.result()

    def watch(self, work: Coroutine[object, object, None], name: str = "watch") -> None:
        """Run this as well, until the session ends. If it finds a reason to end the session, it calls `end`."""
        task = asyncio.create_task(work, name=f"{self._name}-{name}")
        task.add_done_callback(self._on_watch_ended)
        self._watches.append(task)

    async def ended(self) -> str:
        """See `Session.ended`."""
        return await self._end.wait()

    def raise_if_ended(self) -> None:
        """Raises NotConnected."""
        if self._end.reason is not None:
            raise self.ended_error()

    def ended_error(self) -> NotConnected:
        """The error that is raised after the end."""
        return NotConnected(f"the connection to {self._broker} ended: {self._end.reason}")

    def end(self, reason: str) -> bool:
        """End the session: work under way ends in NotConnected. Returns False if it had ended before."""
        if not self._end.set(reason):
            return False
        self._disposal = asyncio.create_task(self._dispose(), name=f"{self._name}-disposal")
        self._abandon()
        return True

    async def close(self) -> None:
        """End it, and return when everything is given back. Never raises."""
        self.end("closed")
        if self._disposal is not None:
            await asyncio.shield(self._disposal)

    def _on_watch_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # mostly by the end of the session
            self.end(f"{task.get_name()} was cancelled")
        elif task.exception() is not None:  # a bug; unwatched, the session must not go on
            self.end(f"{task.get_name()} failed: {type(task.exception()).__name__}")

    async def _dispose(self) -> None:
        await end(list(self._working))
        await end(self._watches)
        await self._give_back()
