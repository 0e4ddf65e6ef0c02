"""`expiry-bridge demo`: the real one, as a user runs it. What it tells is true, and it leaves nothing behind."""

import re
import signal
import sys
from collections.abc import Collection
from importlib import metadata
from pathlib import Path

import pytest

from bridge.cli import main
from bridge.commands.demo_arrivals import Arrival, Arrivals, Books
from bridge.commands.demo_stage import BridgeProcess, Stage
from bridge.commands.demo_story import UNDISTURBED, WHILE_FROZEN, WHILE_KILLED, Story
from bridge.commands.embedded import EmbeddedNats, EmbeddedValkey
from bridge.commands.screen import Screen
from bridge.telemetry import logs
from tests.servers import Bridge, require, wait_until

DEMO_SECONDS = 90.0
STRAY = {"BRIDGE_REDIS_URL": "redis://127.0.0.1:1", "BRIDGE_SINK": "kafka", "BRIDGE_UNKNOWN": "x"}
"""Settings of the user's own: none of the demo's business."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc, and relies on PR_SET_PDEATHSIG")


@pytest.fixture(autouse=True)
def with_servers() -> None:
    require(EmbeddedValkey)
    require(EmbeddedNats)


class Demo(Bridge):
    """The command, with a directory of its own for its temporary files."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.files = directory
        super().__init__({**STRAY, "TMPDIR": str(directory)}, "demo")

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


def columns(line: str) -> list[str]:
    """What a line of the output says, column by column."""
    return re.split(r" {2,}", line.strip())


@pytest.mark.slow
async def test_the_story_ends_well_and_every_count_is_told(tmp_path: Path) -> None:
    with Demo(tmp_path / "files") as demo:
        assert await demo.exited(DEMO_SECONDS) == 0, demo.log()
        text = demo.output()
        assert list(demo.files.iterdir()) == []
        assert demo.log() == "\n".join(text.splitlines()[-40:])  # nothing on standard error

    lines = text.splitlines()
    acts = {"all is well": UNDISTURBED, "bridge killed": WHILE_KILLED, "broker frozen": WHILE_FROZEN}
    for key in UNDISTURBED | WHILE_KILLED | WHILE_FROZEN:
        via = "sweep" if key in WHILE_KILLED else "notification"
        assert [columns(line)[:2] for line in lines if line.strip().startswith(f"{key} ")] == [[key, via]]
    for name, keys in acts.items():
        count = len(keys)
        assert f"✓ {count} of {count} arrived" in text
        [row] = [columns(line) for line in lines if columns(line)[0] == name]
        assert row[1:5] == [str(count), str(count), "0", "0"]
    total = sum(map(len, acts.values()))
    [row] = [columns(line) for line in lines if columns(line)[0] == "in all"]
    assert row[1:5] == [str(total), str(total), "0", "0"]
    assert f"Nothing got lost: {total} keys expired, and {total} are in the stream." in text
    assert f"{len(WHILE_KILLED)} via sweep" in text
    assert re.search(r"Valkey told its 0 subscribers", text)


async def test_its_output_is_plain_where_it_is_no_terminal(tmp_path: Path) -> None:
    with Demo(tmp_path / "files") as demo:
        await demo.told("2. The bridge is killed")
        text = demo.output()

    assert "\x1b" not in text
    assert not [line for line in text.splitlines() if line != line.rstrip() or len(line) > 110]


@linux
@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "number", "status"),
    [
        ("Ready: Valkey", signal.SIGHUP, 129),
        ("The bridge starts again", signal.SIGINT, 130),
        ("Then NATS is frozen", signal.SIGTERM, 143),
    ],
)
async def test_a_signal_leaves_no_process_and_no_directory(
    tmp_path: Path, moment: str, number: signal.Signals, status: int
) -> None:
    with Demo(tmp_path / "files") as demo:
        await demo.told(moment)
        await wait_until(lambda: len(demo.descendants()) == 3, lambda: f"its processes: {demo.descendants()}")

        demo.send_signal(number)

        assert await demo.exited() == status
        assert not demo.descendants()
        assert list(demo.files.iterdir()) == []
        assert "Traceback" not in demo.log()


@linux
@pytest.mark.slow
async def test_a_killed_demo_takes_its_processes_along(tmp_path: Path) -> None:
    with Demo(tmp_path / "files") as demo:
        await demo.told("Then NATS is frozen")
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


def arrival(key: str, message_id: str) -> Arrival:
    return Arrival(message_id, f"expired.0.{key}", key, "notification", 0.5, "{}")


def test_the_books_tell_copies_from_messages_too_many() -> None:
    books = Books({"a", "b", "c"}, [arrival("a", "1"), arrival("a", "1"), arrival("b", "2"), arrival("b", "3")])

    assert books.missing == ["c"]
    assert (books.delivered, books.duplicates, books.surplus) == (2, 1, 1)
    assert books.lags == (0.5, 0.5)


class Losing(Arrivals):
    """Of the keys set, one did not arrive, and one came twice under two ids."""

    def books(self, keys: Collection[str]) -> Books:
        """See `Arrivals`."""
        _first, *others = sorted(keys)
        return Books(keys, [arrival(key, key) for key in others] + [arrival(others[0], "another")])


def test_what_is_missing_is_named_and_the_story_does_not_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage()

    good = Story(stage, Screen())._conclude(Losing(stage.settings, lambda _: None), 12.0)

    assert not good
    assert (
        f"Missing: {min(UNDISTURBED | WHILE_FROZEN | WHILE_KILLED)}. Messages too many: 1." in capsys.readouterr().out
    )
