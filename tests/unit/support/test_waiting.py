"""`wait_until` ends when its time is over, whatever the condition does."""

import asyncio

import pytest

from tests.support.servers import wait_until


async def test_a_condition_that_swallows_cancellations_is_waited_for_no_longer() -> None:
    asked = 0

    async def swallows() -> bool:
        nonlocal asked
        asked += 1
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return False
        return True

    with pytest.raises(TimeoutError, match="for: what never comes"):
        await wait_until(swallows, "what never comes", 0.05)

    assert asked == 1


async def test_a_condition_that_never_answers_is_reported_as_such() -> None:
    with pytest.raises(TimeoutError, match=r"for: an answer\n\(what is asked has not answered for [\d.]+ s\)"):
        await wait_until(lambda: asyncio.sleep(3600), "an answer", 0.05)
    with pytest.raises(TimeoutError, match=r"for: an answer$"):
        await wait_until(lambda: False, "an answer", 0.05)


async def test_a_condition_that_is_true_is_not_asked_again() -> None:
    answers = iter([False, False, True])

    await wait_until(lambda: next(answers))

    assert not [*answers]
