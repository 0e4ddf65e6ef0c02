"""`expiry-bridge demo`: the real one, as a user runs it. What it tells is true, and it leaves nothing behind."""

import os
import re
import signal
import sys
from collections.abc import Collection
from importlib import metadata
from pathlib import Path

import pytest

from bridge.cli.main import main
from bridge.commands.demo.stage import BridgeProcess
from bridge.commands.demo.story import UNDISTURBED, WHILE_FROZEN, WHILE_KILLED, WHILE_NONE
from bridge.commands.embedded import EmbeddedKafka, EmbeddedNats, EmbeddedValkey
from bridge.telemetry import logs
from tests.support.servers import Bridge, require, wait_until

DEMO_SECONDS = 90.0
STRAY = {"BRIDGE_REDIS_URL": "redis://127.0.0.1:1", "BRIDGE_SINK": "kafka", "BRIDGE_UNKNOWN": "x"}
"""Settings of the user's own: none of the demo's business."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc, and relies on PR_SET_PDEATHSIG")


@pytest.fixture(autouse=True)
def with_servers() -> None:
    require(EmbeddedValkey)
    require(EmbeddedNats)


def require_kafka_for(sink: str) -> None:
    if sink == "kafka":
        require(EmbeddedKafka)


class Demo(Bridge):
    """The command, with a directory of its own for its temporary files."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        directory.mkdir()
        self.files = directory
        where = {name: os.environ[name] for name in ("KAFKA_HOME",) if name in os.environ}
        super().__init__({**STRAY, **where, "TMPDIR": str(directory)}, "demo", *arguments)

    async def told(self, text: str) -> None:
        """Return when it has printed `text`."""
        await wait_until(lambda: text in self.output() or not self.running, self.log, DEMO_SECONDS)
        assert text in self.output(), self.log()

    def descendants(self) -> set[int]:
        """The processes that it started."""
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                directory = (process / "cwd").readlink()  # its own, in ours
            except OSError:
                continue  # it ended, or is another user's
            if directory.is_relative_to(self.files):
                found.add(int(process.name))
        return found


def left_by_a_jvm(processes: Collection[int]) -> list[Path]:
    """The files that a JVM makes in /tmp, whatever TMPDIR says, and removes only if it is not killed."""
    directories = Path("/tmp").glob("hsperfdata_*")  # noqa: S108 - see above
    return [file for each in directories for process in processes if (file := each / str(process)).exists()]


def columns(line: str) -> list[str]:
    """What a line of the output says, column by column."""
    return re.split(r" {2,}", line.strip())


@pytest.mark.slow
@pytest.mark.parametrize("sink", ["jetstream", "kafka"])
async def test_the_story_ends_well_and_every_count_is_told(tmp_path: Path, sink: str) -> None:
    require_kafka_for(sink)
    chosen = ["--sink", sink] if sink != "jetstream" else []  # without a flag it is NATS
    with Demo(tmp_path / "files", *chosen) as demo:
        assert await demo.exited(DEMO_SECONDS) == 0, demo.log()
        text = demo.output()
        assert list(demo.files.iterdir()) == []
        assert demo.log() == "\n".join(text.splitlines()[-40:])  # nothing on standard error

    lines = text.splitlines()
    assert ("NATS with JetStream on port" in text) == (sink == "jetstream")
    assert "\x1b" not in text, "it is no terminal"
    assert not [line for line in lines if line != line.rstrip() or len(line) > 110]
    acts = {"all is well": UNDISTURBED, "bridge killed": WHILE_KILLED, "both killed": WHILE_NONE}
    acts |= {"broker frozen": WHILE_FROZEN, "in all": UNDISTURBED | WHILE_KILLED | WHILE_NONE | WHILE_FROZEN}
    copies, at_once = dict.fromkeys(acts["in all"], 0), 0
    for key in copies:
        via = "sweep" if key in WHILE_NONE else "notification"
        first, *others = [columns(line) for line in lines if line.strip().startswith(f"{key} ")]
        assert (first[:2], len(first)) == ([key, via], 3)
        assert {tuple(row[3:]) for row in others} <= {("once more, under the same id",)}
        copies[key] = len(others)
        at_once += key in WHILE_FROZEN and first[2].endswith(" ms")
    [waited] = re.findall(r"have expired; (\d+) wait in the bridge's outbox", text)
    assert at_once <= len(WHILE_FROZEN) - int(waited)  # a frozen broker stores nothing: that is in the lag
    assert sink == "kafka" or not any(copies.values())  # JetStream drops them
    for name, keys in acts.items():
        count = len(keys)
        assert name == "in all" or f"✓ {count} of {count} arrived" in text
        [row] = [columns(line) for line in lines if columns(line)[0] == name]
        assert row[1:5] == [str(count), str(count), "0", str(sum(copies[key] for key in keys))]
    total, store = len(copies), "topic" if sink == "kafka" else "stream"
    assert f"Nothing got lost: {total} keys expired, and {total} are in the {store}." in text
    assert f"{len(WHILE_NONE)} via sweep" in text
    assert f"{len(WHILE_KILLED)} via notification" in text
    assert re.search(r"later the other one goes on exactly where the dead one was: no gap opens\.", text)
    assert "and 0 subscribers listen" in text
    place = r"in partition \d of topic redis.expired, ce_id" if sink == "kafka" else r"on subject \S+, Nats-Msg-Id"
    [message_id] = re.findall(rf"The first in full, {place} (\w+):", text)
    assert f'"id": "{message_id}"' in text


@linux
@pytest.mark.unmeasured
@pytest.mark.slow
@pytest.mark.parametrize(
    ("sink", "moment", "number", "status", "running"),
    [
        ("jetstream", "Ready: Valkey", signal.SIGHUP, 129, 4),
        ("jetstream", "A bridge starts again", signal.SIGINT, 130, 3),
        ("kafka", "is frozen", signal.SIGTERM, 143, 3),  # a JVM leaves files of its own
    ],
    ids=["at-the-beginning", "bridge-killed", "broker-frozen-kafka"],
)
async def test_a_signal_leaves_no_process_and_no_file(
    tmp_path: Path, sink: str, moment: str, number: signal.Signals, status: int, running: int
) -> None:
    require_kafka_for(sink)
    with Demo(tmp_path / "files", "--sink", sink) as demo:
        await demo.told(moment)
        await wait_until(lambda: len(demo.descendants()) == running, lambda: f"its processes: {demo.descendants()}")
        processes = demo.descendants()

        demo.send_signal(number)

        assert await demo.exited() == status
        assert not demo.descendants()
        assert list(demo.files.iterdir()) == []
        assert not left_by_a_jvm(processes)
        assert "Traceback" not in demo.log()


@linux
@pytest.mark.unmeasured
async def test_a_signal_while_kafka_starts_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    require(EmbeddedKafka)
    with Demo(tmp_path / "files", "--sink", "kafka") as demo:
        await wait_until(lambda: any("kafka-format" in directory.name for directory in demo.files.iterdir()), demo.log)
        assert "Ready" not in demo.output()

        demo.send_signal(signal.SIGINT)

        assert await demo.exited() == 130
        assert not demo.descendants()
        assert list(demo.files.iterdir()) == []
        assert "Traceback" not in demo.log()


@linux
@pytest.mark.unmeasured
@pytest.mark.slow
async def test_a_killed_demo_takes_its_processes_along(tmp_path: Path) -> None:
    with Demo(tmp_path / "files") as demo:
        await demo.told("is frozen")
        assert len(demo.descendants()) == 3

        demo.kill()

        await wait_until(lambda: not demo.descendants())


def test_without_its_servers_it_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing_installed(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", nothing_installed)

    assert main(["demo"]) == 1

    output = capsys.readouterr()
    assert output.out == ""
    [line] = output.err.splitlines()
    assert "pip install 'expiry-bridge[demo]'" in line


def test_a_bridge_that_does_not_run_ends_it_with_the_bridges_own_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # the logging of this process is pytest's
    monkeypatch.setattr(BridgeProcess, "command", lambda _: [sys.executable, "-c", "raise SystemExit('no, thanks')"])

    assert main(["demo"]) == 1

    error = capsys.readouterr().err
    assert "the bridge ended with status 1" in error
    assert error.rstrip().endswith("no, thanks")
