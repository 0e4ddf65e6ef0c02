"""What the stdout sink does beyond what all sinks do."""

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from bridge.clock import SystemClock
from bridge.errors import NotConnected, Refused
from bridge.sinks.stdout import StdoutSink
from tests.support.brokers.caller import Caller, TakenLater
from tests.support.brokers.rigs import StdoutRig, ids, messages


@pytest.fixture
async def rig() -> AsyncIterator[StdoutRig]:
    async with StdoutRig() as made:
        yield made


async def test_a_line_is_the_structured_event_in_both_modes(rig: StdoutRig) -> None:
    sink = rig.sink()
    await sink.open()
    structured = messages(3)
    await sink.publish(structured)
    await sink.publish(messages(3, mode="binary"))
    await sink.close()
    lines = await rig.lines()
    assert lines[:3] == lines[3:] == [orjson.loads(message.body) for message in structured]


async def test_a_reader_that_stands_still_does_not_hold_up_the_event_loop(rig: StdoutRig) -> None:
    sink = rig.sink()
    await sink.open()
    rig.freeze()
    publishing = asyncio.create_task(sink.publish(messages(5000)))
    done, _ = await asyncio.wait([publishing], timeout=0.2)
    assert not done
    rig.thaw()
    await publishing
    await sink.close()
    assert await rig.stored() == ids(messages(5000))


async def test_a_non_blocking_descriptor_will_do(rig: StdoutRig) -> None:
    os.set_blocking(rig.fd, False)
    sink = rig.sink()
    await sink.open()
    await sink.publish(messages(5000))
    await sink.close()
    assert await rig.stored() == ids(messages(5000))


async def test_after_close_it_opens_again_only_when_the_stuck_line_is_out(rig: StdoutRig) -> None:
    sink = rig.sink()
    await sink.open()
    rig.freeze()
    publishing = asyncio.create_task(sink.publish(messages(5000)))
    await asyncio.wait([publishing], timeout=0.1)
    await sink.close()
    with pytest.raises(NotConnected):
        await publishing
    with pytest.raises(NotConnected, match="reader"):
        await sink.open()
    rig.thaw()
    async with asyncio.timeout(10):
        while not sink.connected:
            try:
                await sink.open()
            except NotConnected:
                continue
    await sink.publish(messages(1, first=5000))
    await sink.close()
    assert await rig.stored() == ids(messages(5001))


async def test_a_reader_that_has_gone_is_refused_with_the_reason() -> None:
    out, into = os.pipe()
    sink = Caller(StdoutSink(SystemClock(), into))
    await sink.open()
    os.close(out)
    with pytest.raises(Refused, match="standard output is closed"):
        await sink.publish(messages(1))
    assert not sink.connected
    await sink.close()
    os.close(into)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
async def test_a_full_disk_is_retryable() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    sink = Caller(StdoutSink(SystemClock(), full))
    await sink.open()
    with pytest.raises(TakenLater, match="No space left"):
        await sink.publish(messages(1))
    assert sink.connected
    await sink.close()
    os.close(full)


async def test_a_regular_file_will_do(tmp_path: Path) -> None:
    file = os.open(tmp_path / "events", os.O_WRONLY | os.O_CREAT)
    sink = Caller(StdoutSink(SystemClock(), file))
    await sink.open()
    await sink.publish(messages(3))
    await sink.close()
    os.close(file)
    assert [orjson.loads(line)["id"] for line in (tmp_path / "events").read_bytes().splitlines()] == ids(messages(3))


async def test_a_line_that_was_torn_is_ended_before_the_batch_comes_again(tmp_path: Path) -> None:
    path = tmp_path / "events"
    batch = messages(2)
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    sink = Caller(StdoutSink(SystemClock(), file))
    await sink.open()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(batch[0].body) + 50, hard))
    try:
        with pytest.raises(TakenLater, match="File too large"):
            await sink.publish(batch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await sink.publish(batch)
    await sink.close()
    os.close(file)
    lines = path.read_bytes().splitlines()
    assert lines == [batch[0].body, batch[1].body[:49], batch[0].body, batch[1].body]
