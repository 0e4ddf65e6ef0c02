"""Tasks that belong together: named, and none of them ends unnoticed."""

import asyncio
import threading
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

_Result = TypeVar("_Result")

PATIENCE = 0.2
"""Seconds until a task that was cancelled, and goes on, is cancelled again."""


async def run_together(tasks: Mapping[str, Coroutine[object, object, None]], *, until: str | None = None) -> None:
    """Run the coroutines side by side until all have returned (or the one named `until` has), or one has raised.

    The first exception cancels the others and, once they have ended, is raised as it is (a TaskGroup would wrap it).
    Being cancelled cancels them, too.
    """
    running = {name: asyncio.create_task(coroutine, name=name) for name, coroutine in tasks.items()}
    waiting = set(running.values())
    try:
        while waiting and not (until is not None and running[until].done()):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        await end(running.values())


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and return when all have ended, with any result.

    A cancellation can get lost: `asyncio.wait_for` swallows it on Python 3.11 when its own wait is over at the same
    moment (bpo-37658), and client libraries use it. Hence it is repeated.
    """
    waiting = {task for task in tasks if not task.done()}
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=PATIENCE)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # the one that awaits the task gets it; else asyncio would report an unretrieved one


async def in_thread(work: Callable[[], _Result]) -> _Result:
    """What `work` returns, or raises, in a thread of its own. The end of the process does not wait for it."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[_Result] = loop.create_future()

    def give(result: _Result | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]  # what `work` has returned

    def run() -> None:
        result: _Result | None = None
        failure: BaseException | None = None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited, and ends no more than that
            fits = isinstance(error, Exception) and not isinstance(error, StopIteration)
            failure = error if fits else RuntimeError(type(error).__name__)
        with suppress(RuntimeError):  # the loop is closed: nothing waits
            loop.call_soon_threadsafe(give, result, failure)

    threading.Thread(target=run, name="in-thread", daemon=True).start()
    return await answer
