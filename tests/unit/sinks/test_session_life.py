"""What a session has under way ends with it, and what it uses is given back after that."""

import asyncio

import pytest

from bridge.errors import NotConnected
from bridge.sinks.session_life import SessionLife


class Scene:
    """A session's life, and what happened."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.life = SessionLife("test", "the broker", self._give_back, lambda: self.log.append("abandoned"))

    async def _give_back(self) -> None:
        self.log.append("given back")

    async def work(self) -> None:
        """Until the end."""
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # to end takes a while
            self.log.append("work ended")


async def fail() -> None:
    await asyncio.sleep(0)
    raise KeyError("a secret")


async def wait_for_what_is_cancelled() -> None:
    """As a library may do it to those who wait for it."""
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(answer.cancel)
    await answer


async def test_the_end_ends_all_that_is_under_way_and_then_gives_back() -> None:
    scene = Scene()
    scene.life.watch(scene.work())
    running = asyncio.create_task(scene.life.run(scene.work(), "work"))
    await asyncio.sleep(0.01)

    assert scene.life.end("it broke")
    assert not scene.life.end("something else")
    with pytest.raises(NotConnected, match="the connection to the broker ended: it broke"):
        await running
    await scene.life.close()

    assert scene.log == ["abandoned", "work ended", "work ended", "given back"]
    assert await scene.life.ended() == "it broke"
    with pytest.raises(NotConnected, match="it broke"):
        await scene.life.run(scene.work(), "work")


async def test_a_beginning_that_fails_gives_everything_back() -> None:
    scene = Scene()
    with pytest.raises(KeyError):
        await scene.life.begin(fail())
    assert scene.log == ["abandoned", "given back"]


async def test_a_beginning_that_is_cancelled_gives_everything_back() -> None:
    scene = Scene()
    beginning = asyncio.create_task(scene.life.begin(scene.work()))
    await asyncio.sleep(0.01)
    beginning.cancel()
    await asyncio.wait([beginning])
    assert scene.log == ["work ended", "abandoned", "given back"]


async def test_a_watch_that_fails_ends_the_session_without_its_words() -> None:
    scene = Scene()
    scene.life.watch(fail())
    assert await scene.life.ended() == "test-watch failed: KeyError"
    await scene.life.close()
    assert scene.log == ["abandoned", "given back"]


async def test_work_that_is_cancelled_from_inside_ends_the_session() -> None:
    scene = Scene()
    with pytest.raises(NotConnected, match="the connection to the broker ended: test-work was cancelled"):
        await scene.life.run(wait_for_what_is_cancelled(), "work")
    async with asyncio.timeout(1):
        assert await scene.life.ended() == "test-work was cancelled"
    await scene.life.close()


async def test_a_watch_that_is_cancelled_from_inside_ends_the_session() -> None:
    scene = Scene()
    scene.life.watch(wait_for_what_is_cancelled())
    async with asyncio.timeout(1):
        assert await scene.life.ended() == "test-watch was cancelled"
    await scene.life.close()
    assert scene.log == ["abandoned", "given back"]


async def test_work_that_is_given_up_leaves_the_session_alone() -> None:
    scene = Scene()
    running = asyncio.create_task(scene.life.run(scene.work(), "work"))
    await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert scene.log == ["work ended"]
    await scene.life.close()
