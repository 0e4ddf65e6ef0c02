"""What `bridge.contracts.Sink` promises, of every sink."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Literal

import pytest

from bridge.clock import SystemClock
from bridge.errors import NotConnected
from bridge.limits import Limits
from bridge.settings import Settings, SinkKind
from bridge.sinks import create
from tests.support.brokers.caller import Caller, Rejected
from tests.support.brokers.each import EACH_WAY, broker_of
from tests.support.brokers.rigs import (
    NASTY_KEYS,
    JetStreamRig,
    Observed,
    Rig,
    StdoutRig,
    batches,
    deliver,
    ids,
    messages,
)

BOUNDED_SECONDS = 8.0
LONG = 64 * 1024
HARD_KEYS = [
    *[b"\x00", b"\x00:\x00", b"\xed\xa0\x80", b"\xed\xb3\xbf:a", b"\xc0\x80", b"a:\xff\xfe", b"\xf4\x90\x80\x80"],
    *[
        b"share:" + b"x" * LONG,
        b"x" * LONG,
        b"\xff" * LONG,
        b"\x00" * LONG,
        b":" * LONG,
        b"a" * 300 + b":b",
        b"\xc3" * 300,
    ],
]
"""NUL bytes, halves of surrogate pairs, other bytes that are no UTF-8, and 64 KiB, of prefixes as well."""


@pytest.fixture(params=["stdout", *EACH_WAY])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with StdoutRig() if request.param == "stdout" else broker_of(request) as made:
        yield made


@pytest.fixture
async def sink(rig: Rig) -> AsyncIterator[Caller]:
    made = rig.sink()
    await made.open()
    yield made
    await made.close()


@pytest.mark.parametrize("size", [0, 1, 5000])
async def test_acked_means_stored(rig: Rig, sink: Caller, size: int) -> None:
    batch = messages(size)
    await sink.publish(batch)
    assert await rig.stored() == ids(batch)


@pytest.mark.unmeasured
async def test_batches_are_published_side_by_side(rig: Rig, sink: Caller) -> None:
    wanted = batches(40, 250)
    await asyncio.gather(*map(sink.publish, wanted))
    assert sorted(await rig.stored()) == sorted(id_ for batch in wanted for id_ in ids(batch))


async def test_any_key_is_taken_in_both_modes(rig: Rig, sink: Caller) -> None:
    structured = messages(0, keys=NASTY_KEYS)
    binary = messages(0, keys=NASTY_KEYS, first=1000, mode="binary")
    await sink.publish(structured)
    await sink.publish(binary)
    assert await rig.stored() == ids(structured) + ids(binary)


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_keys_that_are_no_text_or_very_long_are_taken(
    rig: Rig, sink: Caller, mode: Literal["structured", "binary"]
) -> None:
    batch, dead = messages(0, keys=HARD_KEYS, mode=mode), dict[int, str]()
    try:
        await sink.publish(batch)
    except Rejected as error:
        dead = error.reasons
    assert isinstance(rig, JetStreamRig) or not dead
    for index, reason in dead.items():  # a prefix is a part of the subject, and in binary mode a key of the headers
        prefix = HARD_KEYS[index].partition(b":")[0]
        assert len(prefix if mode == "structured" else HARD_KEYS[index]) >= LONG
        assert re.search("the most that NATS takes|header size exceeds", reason)
    wanted = [message.id for index, message in enumerate(batch) if index not in dead]
    assert sorted(await rig.stored()) == sorted(wanted)


async def test_before_open_and_after_close_it_is_not_connected(rig: Rig) -> None:
    sink = rig.sink()
    await sink.close()
    for _ in range(2):
        assert not sink.connected
        with pytest.raises(NotConnected):
            await sink.publish(messages(1))
        await sink.open()
        await sink.open()  # does nothing
        await sink.publish(messages(1))
        await sink.close()
        await sink.close()


async def test_a_batch_that_was_cancelled_leaves_the_sink_usable(rig: Rig, sink: Caller) -> None:
    rig.freeze()
    publishing = asyncio.create_task(sink.publish(messages(3000)))
    await asyncio.sleep(0.05)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    rig.thaw()
    batch = messages(10, first=10_000)
    await deliver(sink, batch)
    assert set(ids(batch)) <= set(await rig.stored())


async def test_close_while_the_broker_is_frozen_is_bounded_and_ends_batches_in_not_connected(
    rig: Rig, sink: Caller
) -> None:
    rig.freeze()
    publishing = [asyncio.create_task(sink.publish(batch)) for batch in batches(20, 1000)]
    await asyncio.sleep(0.05)
    started = time.monotonic()
    await sink.close()
    results = await asyncio.gather(*publishing, return_exceptions=True)
    assert time.monotonic() - started < BOUNDED_SECONDS
    assert any(isinstance(result, NotConnected) for result in results)
    assert all(result is None or isinstance(result, NotConnected) for result in results)
    assert not sink.connected


@pytest.mark.unmeasured
async def test_after_a_freeze_everything_is_delivered(rig: Rig, sink: Caller) -> None:
    wanted = batches(10, 1000)
    await sink.publish(wanted[0])
    rig.freeze()
    delivering = [asyncio.create_task(deliver(sink, batch)) for batch in wanted]
    await asyncio.sleep(0.2)
    rig.thaw()
    await asyncio.gather(*delivering)
    assert set(await rig.stored()) == {id_ for batch in wanted for id_ in ids(batch)}


@pytest.mark.parametrize("kind", list(SinkKind))
def test_the_factory_makes_the_sink_of_the_settings(kind: SinkKind) -> None:
    sink = create(Settings(sink=kind), 0, SystemClock(), Limits(), Observed())
    assert kind.value in type(sink).__name__.lower()
