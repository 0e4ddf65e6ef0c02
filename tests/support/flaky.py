"""Flaky tests are named, or they fail.

No test is run a second time, but for those in `tests/flaky.txt`: a short list of tests that are known to fail now and
then, each with the date on which it was found out, and what is known of the reason. Such a test that fails is run once
more; if it then passes, the summary counts it as *flaky*, and names it. One that fails twice has failed.

An entry is a debt: after `MOST_DAYS` a test fails until the reason is removed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

import pytest
from _pytest.runner import runtestprotocol

LIST: Final = Path(__file__).resolve().parents[1] / "flaky.txt"
MOST_DAYS: Final = 30
FLAKY: Final = "flaky"
"""The category of the summary."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the list: `2026-11-29 tests/room/test_file.py::test_name the reason`."""

    since: date
    test: str
    """Its id, without parameters: they all count."""
    reason: str

    @classmethod
    def of(cls, line: str) -> "Entry":
        """Raises ValueError unless all three are there."""
        since, test, reason = line.split(maxsplit=2)
        return cls(date.fromisoformat(since), test, reason)


def entries(path: Path = LIST) -> list[Entry]:
    """Those of the list; empty lines, and those that begin with #, are none."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return [Entry.of(line) for line in lines if line and not line.startswith("#")]


class Reruns:
    """The plugin: runs once more what is listed and has failed."""

    def __init__(self, path: Path = LIST) -> None:
        self._listed = {entry.test for entry in entries(path)}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Only for what is listed."""
        if item.nodeid.partition("[")[0] not in self._listed:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        failed = any(report.failed for report in reports)
        if failed:
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
        for report in reports:
            if failed and report.when == "call" and report.passed:
                report.flaky = True  # type: ignore[attr-defined]  # xdist sends it on, with all else of a report
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Count it by itself."""
        return (FLAKY, "R", FLAKY.upper()) if getattr(report, "flaky", False) else None

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name them."""
        for line in self._lines(terminalreporter):
            terminalreporter.write_line(line, yellow=True)

    def _lines(self, terminalreporter: pytest.TerminalReporter) -> Iterator[str]:
        for report in terminalreporter.stats.get(FLAKY, ()):
            yield f"FLAKY {report.nodeid}: passed only when it was run again"
