"""Tasks that belong together: named, and none of them ends unnoticed."""

import asyncio
from collections.abc import Collection, Coroutine, Mapping
from typing import Any

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
    """Cancel the tasks and return when all have ended, whatever they end with.

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
            task.exception()  # known to whoever awaits the task; else asyncio would complain that nobody looked
