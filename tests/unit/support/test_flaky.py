"""A test that passes only when it is run again is listed, or it fails."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.flaky import MOST_DAYS, Entry, entries
from tests.support.servers import ROOT

TESTS = """
from pathlib import Path

def test_fails_once() -> None:
    seen = Path("seen")
    first, _ = not seen.exists(), seen.touch()
    assert not first

def test_fails() -> None:
    assert False

def test_passes() -> None:
    pass
"""


def outcome(directory: Path, *listed: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
    """Exit status and output of a pytest that runs these tests, where so many are listed."""
    (directory / "test_some.py").write_text(TESTS)
    (directory / "flaky.txt").write_text("".join(f"2026-11-29 test_some.py::{name} why\n" for name in listed))
    (directory / "conftest.py").write_text(
        "from pathlib import Path\nfrom tests.support.flaky import Reruns\n"
        "def pytest_configure(config):\n"
        "    config.pluginmanager.register(Reruns(Path(__file__).parent / 'flaky.txt'))\n"
    )
    command = [sys.executable, "-m", "pytest", "--rootdir", str(directory), "-p", "no:cacheprovider", *options]
    done = subprocess.run(
        [*command, str(directory)],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # else most of its time is theirs
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("options", [(), ("-p", "xdist", "-n", "1")], ids=["alone", "with xdist"])
def test_what_is_listed_and_passes_when_run_again_is_counted_as_flaky_and_named(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    _, said = outcome(tmp_path, "test_fails_once", options=options)

    assert "1 failed, 1 passed, 1 flaky" in said
    assert "FLAKY test_some.py::test_fails_once" in said


def test_what_is_listed_and_fails_twice_has_failed(tmp_path: Path) -> None:
    status, said = outcome(tmp_path, "test_fails_once", "test_fails")

    assert status == 1
    assert "1 failed, 1 passed, 1 flaky" in said


def test_what_is_not_listed_is_not_run_again(tmp_path: Path) -> None:
    status, said = outcome(tmp_path)

    assert status == 1
    assert "2 failed, 1 passed" in said


def test_what_is_listed_exists_and_has_been_so_for_no_longer_than_a_month() -> None:
    for entry in entries():
        file, _, name = entry.test.partition("::")
        assert f"def {name.rpartition('::')[2]}(" in (ROOT / file).read_text(), f"{entry.test} does not exist"
        age = datetime.now(UTC).date() - entry.since
        assert age <= timedelta(days=MOST_DAYS), f"{entry.test} has been flaky for {age.days} days: {entry.reason}"


def test_a_line_has_a_date_a_test_and_a_reason() -> None:
    assert Entry.of("2026-11-29 tests/a.py::test_b it waits for a clock").reason == "it waits for a clock"
    with pytest.raises(ValueError, match="unpack"):
        Entry.of("2026-11-29 tests/a.py::test_b")
