"""Whoever logs never waits for whoever reads: what finds no room is dropped, and counted."""

import fcntl
import io
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest

from bridge.telemetry import logs
from bridge.telemetry.events import Telemetry

LINE = "x" * 999 + "\n"
PAGE = 4096


@contextmanager
def pipe() -> Iterator[tuple[int, TextIO]]:
    """One that holds a page: where to read, and where to write."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PAGE)
    with open(writing, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor has no path
        try:
            yield reading, stream
        finally:
            os.close(reading)


def all_of(reading: int) -> bytes:
    """What is read until the last line, which is `end`."""
    data = b""
    while not data.endswith(b"end\n"):
        data += os.read(reading, PAGE)
    return data


def test_lines_that_find_no_room_are_dropped_and_counted() -> None:
    with pipe() as (reading, stream):
        writer = logs.Writer(stream, room=10 * len(LINE))
        said = sum(writer.write(LINE) for _ in range(100))  # where the thread made room between two lines
        assert writer.dropped >= 100 - 10 - PAGE // len(LINE) - 1
        assert not writer.flush(0)

        reader = threading.Thread(target=lambda: received.append(all_of(reading)))
        received: list[bytes] = []
        reader.start()
        assert writer.flush(20)
        assert said + writer.write("end\n") == writer.dropped, "the next line to be taken can say so"
        reader.join(20)
        assert received[0].count(LINE.encode()) == 100 - writer.dropped
        assert writer.write("more\n") == 0
        assert writer.flush(20), "else its thread writes into whatever gets this descriptor next"


def test_lines_keep_their_order() -> None:
    with pipe() as (reading, stream):
        writer = logs.Writer(stream)
        for number in range(500):
            writer.write(f"{number}\n")
        writer.write("end\n")
        assert all_of(reading).split() == [*(b"%d" % number for number in range(500)), b"end"]


def test_a_reader_that_has_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor has no path
        writer = logs.Writer(stream)
        writer.write(LINE)
        assert writer.flush(20)
        assert writer.dropped == 1


def test_a_descriptor_that_others_made_non_blocking_still_gets_all_lines() -> None:
    with pipe() as (reading, stream):
        os.set_blocking(stream.fileno(), False)
        writer = logs.Writer(stream)
        for _ in range(20):
            writer.write(LINE)
        writer.write("end\n")
        assert all_of(reading) == LINE.encode() * 20 + b"end\n"


def test_what_was_dropped_is_a_metric_and_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe() as (reading, stream):
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setattr(logs, "ROOM_BYTES", 10_000)
        logs.configure("info", "json")
        telemetry = Telemetry()
        for _ in range(200):
            telemetry.sink_connected()
        lost = telemetry.metrics.registry.get_sample_value("bridge_dropped_log_lines_total")
        assert lost == logs.dropped() > 0

        reader = threading.Thread(target=lambda: received.append(all_of(reading)))
        received: list[bytes] = []
        reader.start()
        assert logs.flush(20)
        telemetry.sink_connected()
        assert logs.flush(20)
        stream.write("end\n")
        stream.flush()
        reader.join(20)
    lines = map(json.loads, received[0].splitlines()[:-1])
    announced = [line for line in lines if line["event"] == "log.lines_dropped"]
    assert sum(line["count"] for line in announced) == lost
    assert {line["level"] for line in announced} == {"warning"}


class Terminal(io.StringIO):
    """As far as anybody can see."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "colored"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_a_terminal_gets_no_colors_that_it_does_not_want(
    environment: dict[str, str],
    colored: bool,  # noqa: FBT001 - a parameter of the test
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    logs.configure("info", None)

    Telemetry().sink_connected()

    assert "sink.connected" in terminal.getvalue()
    assert ("\x1b[" in terminal.getvalue()) is colored
