"""What is sent again, and when: a stream acks in the order in which it receives, however slow it is, or not at all."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count, pairwise
from typing import cast

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from bridge.limits import JetStreamLimits
from bridge.settings import Settings
from bridge.sinks.jetstream.api import Api
from bridge.sinks.jetstream.context import Context
from bridge.sinks.jetstream.denials import Denials
from bridge.sinks.jetstream.stream import Stream
from bridge.sinks.jetstream.window import PROBES, Window
from bridge.sinks.jetstream.wire import Wire
from bridge.sinks.subjects import SubjectTemplate
from bridge.tasks import end
from tests.support.brokers.caller import Tally
from tests.support.brokers.rigs import Observed, messages
from tests.support.hand_clock import HandClock, turns

INBOX = "_INBOX.x."
LIMITS = JetStreamLimits()
ACK = b'{"stream":"EXPIRY", "seq":7}'
TAKEN = b'{"error":{"code":503,"err_code":10077,"description":"maximum messages per subject exceeded"}}'
SILENT = b"silent:1"
"""A key whose message no one answers, whoever leads."""


class Broker:
    """A connection, and the stream behind it."""

    max_payload = 1 << 20
    pending_data_size = 0

    def __init__(self, clock: HandClock, *, once: bool) -> None:
        self.window: Window
        self.once = once
        """Whether it refuses what it has."""
        self.acks = True
        """Else what is sent to it is stored, and nobody hears of that."""
        self.led = True
        """Else what is sent to it is gone."""
        self.latency = 0.1
        """Seconds to an ack."""
        self.stored: set[str] = set()
        """The ids of messages."""
        self.taken: list[tuple[float, str]] = []
        """What was sent to it: when, and the token of the reply subject."""
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            reply = frame.split(b" ", 3)[2].decode()
            self.taken.append((self._clock.now, reply.removeprefix(INBOX)))
            if self.led and SILENT not in frame:
                id_ = frame.partition(b"Nats-Msg-Id: ")[2][:32].decode()
                answer = TAKEN if self.once and id_ in self.stored else ACK
                self.stored.add(id_)
                if self.acks:
                    task = asyncio.create_task(self._answer(reply, answer))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    async def _answer(self, reply: str, answer: bytes) -> None:
        await self._clock.sleep(self.latency)
        token = reply.removeprefix(INBOX)
        if token.isdecimal() and answer is ACK:
            self.window.on_acks([token.encode()])
        else:
            await self.window.on_reply(Msg(cast("Client", None), reply, data=answer))

    async def missing(self, subjects: Mapping[int, str]) -> dict[int, str]:
        """What was refused was stored."""
        assert self.once
        return {}

    def copies(self, since: float = 0.0) -> list[str]:
        """The messages that were sent again since then, by number, in their order."""
        return [token.partition("-")[0] for at, token in self.taken if at >= since and "-" in token]


class Scene:
    """A window, its stream, and what was published."""

    def __init__(self, **settings_: str) -> None:
        self.clock = HandClock()
        settings = Settings.model_validate(settings_)
        self.stream = Broker(self.clock, once=settings.nats_deduplication == "subject")
        context = Context(settings, SubjectTemplate(settings.nats_subject, 0), self.clock, LIMITS, Observed())
        denials = Denials(LIMITS.denials, Api())
        self.window = Window(cast("Wire", self.stream), INBOX, denials, pytest.fail, context)
        self.stream.window = self.window
        self.published: list[asyncio.Task[None]] = []
        self._first = count(0, 1000)

    async def publish(self, number: int = 0, *, keys: Sequence[bytes] = ()) -> asyncio.Task[None]:
        """Begin with a batch of so many messages, or of these keys."""
        batch = messages(number, first=next(self._first), keys=keys)
        task = asyncio.create_task(self.window.publish(batch, Tally(), cast("Stream", self.stream)))
        self.published.append(task)
        await turns()
        return task


@asynccontextmanager
async def opened(**settings: str) -> AsyncIterator[Scene]:
    """With these settings, and those that are needed."""
    scene = Scene(**settings)
    watch = asyncio.create_task(scene.window.watch())
    yield scene
    await end([watch, *scene.published])


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with opened() as scene:
        yield scene


@pytest.mark.slow
@pytest.mark.parametrize("outage", [1.0, 20.0, 300.0])
async def test_what_a_lost_leader_swallowed_is_sent_again_soon_after_another_one_leads_however_often_that_was(
    scene: Scene, outage: float
) -> None:
    for _ in range(3):
        scene.stream.led = False
        batches = [await scene.publish(100) for _ in range(10)]
        await scene.clock.passes(outage)
        scene.stream.led = True
        await scene.clock.passes(LIMITS.ack + 3 * LIMITS.tick + 2 * scene.stream.latency)
        assert all(batch.done() for batch in batches), f"{sum(not batch.done() for batch in batches)} batches wait"
    assert len(scene.stream.stored) == 3 * 1000


@pytest.mark.parametrize("deduplication", ["window", "subject"])
async def test_what_was_stored_by_a_leader_that_acked_none_of_it_is_sent_again_together(deduplication: str) -> None:
    async with opened(nats_deduplication=deduplication) as scene:
        scene.stream.acks = False
        batches = [await scene.publish(100) for _ in range(10)]
        await scene.clock.passes(1.0)
        scene.stream.acks = True
        await scene.clock.passes(LIMITS.ack + 3 * LIMITS.tick + 2 * scene.stream.latency)
        assert all(batch.done() for batch in batches)


async def test_what_was_swallowed_is_sent_again_at_once_when_something_later_is_acked(scene: Scene) -> None:
    scene.stream.led = False
    swallowed = await scene.publish(100)
    scene.stream.led = True
    later = await scene.publish(1)
    await scene.clock.passes(scene.stream.latency + 2 * LIMITS.tick + scene.stream.latency)
    assert later.done()
    assert swallowed.done()


async def test_a_stream_that_is_slow_gets_hardly_anything_twice(scene: Scene) -> None:
    scene.stream.latency = 12 * LIMITS.ack
    batches = []
    for _ in range(10):
        batches.append(await scene.publish(50))
        await scene.clock.passes(2.0)
    await scene.clock.passes(2 * scene.stream.latency)
    assert all(batch.done() for batch in batches)
    seconds = scene.clock.now
    assert 0 < len(scene.stream.copies()) <= seconds / LIMITS.ack * 20, "one message of each batch at a time"
    assert {int(number) % 50 for number in scene.stream.copies()} == {0}, "and always the same one"


async def test_what_never_gets_an_answer_is_sent_ever_more_seldom_while_others_are_acked(scene: Scene) -> None:
    silent = await scene.publish(keys=[SILENT])
    for _ in range(300):
        await scene.publish(1)
        await scene.clock.passes(1.0)
    assert not silent.done()
    times = [at for at, token in scene.stream.taken if token.startswith("0-")]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[:2] == pytest.approx([LIMITS.ack, 2 * LIMITS.ack], abs=2 * LIMITS.tick)
    assert pauses[4:] == pytest.approx([LIMITS.resend_most] * (len(pauses) - 4), abs=2 * LIMITS.tick)
    assert set(scene.stream.copies()) == {"0"}


async def test_what_never_gets_an_answer_keeps_no_other_message_from_being_sent_again(scene: Scene) -> None:
    for _ in range(10 * PROBES):
        await scene.publish(keys=[SILENT])
    scene.stream.led = False
    swallowed = [await scene.publish(10) for _ in range(5)]
    scene.stream.led = True
    await scene.clock.passes(LIMITS.ack + 15 * LIMITS.tick)
    assert all(batch.done() for batch in swallowed)


async def test_a_copy_that_is_acked_by_the_former_sending_proves_nothing(scene: Scene) -> None:
    scene.stream.latency = LIMITS.ack + 1.0
    batch = await scene.publish(10)
    await scene.clock.passes(LIMITS.ack + 0.5)
    assert scene.stream.copies() == ["0"]
    await scene.clock.passes(2 * LIMITS.ack)
    assert batch.done()
    assert scene.stream.copies() == ["0"]
