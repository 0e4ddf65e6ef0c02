"""Tasks that belong together end together, and none of them unnoticed."""

import asyncio
import sys

import pytest

from bridge.tasks import end, in_thread, run_together


async def forever(log: list[str] | None = None) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        if log is not None:
            log.append("ended")


async def fail() -> None:
    await asyncio.sleep(0)
    raise KeyError("the reason")


async def nothing() -> None:
    await asyncio.sleep(0)


async def test_the_first_failure_ends_all_and_is_raised_as_it_is() -> None:
    log: list[str] = []

    with pytest.raises(KeyError, match="the reason"):
        await run_together({"a": forever(log), "b": fail()})

    assert log == ["ended"]


async def test_it_returns_when_all_have_returned() -> None:
    await run_together({"a": nothing(), "b": nothing()})


async def test_it_returns_when_the_one_that_matters_has_returned() -> None:
    log: list[str] = []

    await run_together({"background": forever(log), "work": nothing()}, until="work")

    assert log == ["ended"]


async def test_a_background_task_that_fails_is_not_hidden() -> None:
    with pytest.raises(KeyError):
        await run_together({"background": fail(), "work": forever()}, until="work")


async def test_a_cancellation_reaches_all() -> None:
    log: list[str] = []
    together = asyncio.create_task(run_together({"a": forever(log), "b": forever(log)}))
    await asyncio.sleep(0.01)

    together.cancel()
    with pytest.raises(asyncio.CancelledError):
        await together

    assert log == ["ended", "ended"]


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)

    await end([task])

    assert swallowed == 2
    assert task.cancelled()


async def test_what_would_end_a_thread_without_a_word_is_raised() -> None:
    with pytest.raises(RuntimeError, match="SystemExit"):
        await asyncio.wait_for(in_thread(sys.exit), 10)
