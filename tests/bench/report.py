"""What was found: as JSON, as SVG, and as the tables of the README."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.case import Figures, Verdict
from tests.bench.chart import PARTS, number, svg
from tests.bench.runner import Result

PUBLISHED: Final = Path(__file__).resolve().parent / "results"
"""What the README shows."""
FILE: Final = "results.json"


@dataclass(frozen=True)
class Report:
    """One run of the benchmark."""

    machine: dict[str, str]
    scale: float
    runs: int | None
    results: Sequence[Result]
    stages: Figures
    """Stage → µs of the bridge's processor time for one expiration; empty if it was not profiled."""


def write(report: Report, directory: Path) -> None:
    """The figures as JSON, and the charts."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / FILE).write_text(json.dumps(_rounded(asdict(report)), indent=1, ensure_ascii=False) + "\n")
    for result in report.results:
        for chart in result.charts:
            (directory / f"{chart.name}.svg").write_text(svg(chart))


def tables(report: Report) -> list[str]:
    """All of them, in Markdown."""
    return [verdicts(report), costs(report), *([stages(report)] if report.stages else [])]


def verdicts(report: Report) -> str:
    """All verdicts, in Markdown."""
    rows = ["| case | figure | found | bar | |", "|---|---|---|---|---|"]
    for result in report.results:
        title = result.title
        for verdict in result.verdicts:
            rows.append(f"| {title} | {verdict.what} | {_found(verdict)} | {_bar(verdict)} | {_mark(verdict)} |")
            title = ""
    return _lines(rows)


def costs(report: Report) -> str:
    """The processor time of one event, by process, in Markdown."""
    rows = [
        f"| case | variant | events/s | {' | '.join(f'{part}, µs' for part in PARTS)} |",
        f"|---|---|---|{'---|' * len(PARTS)}",
    ]
    for result in report.results:
        title = result.title
        for variant, figures in result.medians.items():
            used = [figures.get(f"{part}_cpu_us") for part in PARTS]
            if "rate_per_s" in figures:
                cells = ["–" if value is None else number(value) for value in used]
                rows.append(f"| {title} | {variant} | {number(figures['rate_per_s'])} | {' | '.join(cells)} |")
                title = ""
    return _lines(rows)


def stages(report: Report) -> str:
    """Where the bridge's processor time goes, in Markdown."""
    total = sum(report.stages.values())
    rows = ["| stage | µs | |", "|---|---|---|"]
    rows += [f"| {stage} | {number(used)} | {used / total:.0%} |" for stage, used in report.stages.items()]
    return _lines([*rows, f"| all | {number(total)} | |"])


def _found(verdict: Verdict) -> str:
    return f"{number(verdict.value)} {verdict.unit}"


def _bar(verdict: Verdict) -> str:
    if verdict.at_least is not None:
        return f"≥ {number(verdict.at_least)} {verdict.unit}"
    return f"≤ {number(verdict.at_most)} {verdict.unit}" if verdict.at_most is not None else ""


def _mark(verdict: Verdict) -> str:
    if verdict.at_least is None and verdict.at_most is None:
        return ""
    return "reached" if verdict.reached else "**missed**"


def _lines(rows: Iterable[str]) -> str:
    return "\n".join(rows) + "\n"


def _rounded(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can be
    """With five digits that count: more is noise."""
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
