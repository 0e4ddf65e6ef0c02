"""A question to several servers: who is frozen holds up nobody, and late answers count."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from bridge.clock import SystemClock
from bridge.redis.wire.questions import Questions

FROZEN, FAST, DEAD = "frozen", "fast", "dead"
GRACE = 0.01


class Servers:
    """Some answer, some do not."""

    def __init__(self) -> None:
        self.thaw = asyncio.Event()
        self.asked: list[str] = []

    async def answer(self, server: str) -> str | Exception:
        """The question."""
        self.asked.append(server)
        if server == FROZEN:
            await self.thaw.wait()
        return ConnectionError("refused") if server == DEAD else f"{server} says"


@pytest.fixture
def servers() -> Servers:
    """None was asked."""
    return Servers()


@pytest.fixture
async def questions(servers: Servers) -> AsyncIterator[Questions[str, str]]:
    """To them."""
    asked = Questions(servers.answer, SystemClock(), GRACE)
    yield asked
    await asked.close()


async def test_a_frozen_server_holds_up_no_answer_of_others(questions: Questions[str, str]) -> None:
    assert await questions.ask([FROZEN, FAST]) == {FAST: "fast says"}


async def test_what_a_server_says_late_comes_with_the_next_call(
    servers: Servers, questions: Questions[str, str]
) -> None:
    await questions.ask([FROZEN, FAST])
    servers.thaw.set()
    assert await questions.ask([FROZEN, FAST]) == {FROZEN: "frozen says", FAST: "fast says"}
    assert servers.asked == [FROZEN, FAST, FAST]


async def test_a_refusal_is_no_answer_that_the_others_need_not_be_waited_for(
    servers: Servers, questions: Questions[str, str]
) -> None:
    asyncio.get_running_loop().call_later(2 * GRACE, servers.thaw.set)
    replies = await questions.ask([DEAD, FROZEN])
    assert replies[FROZEN] == "frozen says"
    assert isinstance(replies[DEAD], ConnectionError)


async def test_two_who_ask_at_once_both_get_the_answers(servers: Servers, questions: Questions[str, str]) -> None:
    both = await asyncio.gather(questions.ask([FAST]), questions.ask([FAST]))
    assert list(both) == [{FAST: "fast says"}] * 2
    assert servers.asked == [FAST]
