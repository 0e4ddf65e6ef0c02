"""What was found: as JSON, as SVG, and as the tables of RESULTS.md."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from tests.bench.case import Figures, Verdict
from tests.bench.chart import PARTS, Chart, number, svg
from tests.bench.runner import Result

PUBLISHED: Final = Path(__file__).resolve().parent / "results"
"""What RESULTS.md shows."""
FILE: Final = "results.json"
SHOWN: Final = {"throughput-jetstream", "throughput-kafka", "lag"}
"""Charts that RESULTS.md does not fold away."""


@dataclass(frozen=True)
class Report:
    """One run of the benchmark."""

    machine: dict[str, str]
    scale: float
    runs: int | None
    """Of each variant; None: as many as its case says."""
    results: Sequence[Result]
    stages: Figures
    """Stage → µs of the bridge's processor time for one expiration; empty if it was not profiled."""


_FORMAT: Final = TypeAdapter(Report)


def write(report: Report, directory: Path) -> None:
    """The figures as JSON, and the charts."""
    directory.mkdir(parents=True, exist_ok=True)
    figures = _rounded(_FORMAT.dump_python(report))
    (directory / FILE).write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    for result in report.results:
        for chart in result.charts:
            (directory / f"{chart.name}.svg").write_text(svg(chart))


def read(directory: Path) -> Report:
    """What `write` wrote there."""
    return _FORMAT.validate_json((directory / FILE).read_bytes())


def published() -> str:
    """Its part of RESULTS.md, in Markdown."""
    if not (PUBLISHED / FILE).exists():
        return "Not measured yet.\n"
    report = read(PUBLISHED)
    charts = [chart for result in report.results for chart in result.charts]
    shown = [_image(chart) for chart in charts if chart.name in SHOWN]
    others = [_image(chart) for chart in charts if chart.name not in SHOWN]
    folded = ["<details>", "<summary>More charts</summary>", "", *others, "", "</details>", ""] if others else []
    questions = [f"* *{result.title}*: {result.question}" for result in report.results]
    found, *costs_and_stages = tables(report)
    return "\n".join([*questions, "", found, *shown, "", *costs_and_stages, *folded, _machine(report)])


def tables(report: Report) -> list[str]:
    """All of them, in Markdown."""
    return [verdicts(report), costs(report), *([stages(report)] if report.stages else [])]


def verdicts(report: Report) -> str:
    """What was found, beside the bars."""
    rows = ["| case | figure | found | bar | |", "|---|---|---|---|---|"]
    for result in report.results:
        title = result.title
        for verdict in result.verdicts:
            rows.append(f"| {title} | {verdict.what} | {_found(verdict)} | {_bar(verdict)} | {_mark(verdict)} |")
            title = ""
        if result.failure:
            rows.append(f"| {title} | | | | **failed**: {result.failure} |")
    return _lines(rows)


def costs(report: Report) -> str:
    """The processor time of one event, by process."""
    rows = [
        f"| case | variant | runs | events/s | {' | '.join(f'{part}, µs' for part in PARTS)} |",
        f"|---|---|---|---|{'---|' * len(PARTS)}",
    ]
    for result in report.results:
        title = result.title
        for variant, figures in result.medians.items():
            used = [figures.get(f"{part}_cpu_us") for part in PARTS]
            if "rate_per_s" in figures:
                cells = ["–" if value is None else number(value) for value in used]
                cells = [str(len(result.samples[variant])), number(figures["rate_per_s"]), *cells]
                rows.append(f"| {title} | {variant} | {' | '.join(cells)} |")
                title = ""
    return _lines(rows)


def stages(report: Report) -> str:
    """Where the bridge's processor time goes."""
    total = sum(report.stages.values())
    rows = ["| stage | the bridge's µs | |", "|---|---|---|"]
    rows += [f"| {stage} | {number(used)} | {used / total:.0%} |" for stage, used in report.stages.items()]
    return _lines([*rows, f"| all | {number(total)} | |"])


def _image(chart: Chart) -> str:
    file = (PUBLISHED / f"{chart.name}.svg").relative_to(PUBLISHED.parent)
    return f"![{chart.title}]({file})"


def _machine(report: Report) -> str:
    seconds = sum(result.seconds for result in report.results)
    size = "" if report.scale == 1 else f", with {report.scale:g} times as many keys as are told of"
    return _lines([f"Measured in {seconds / 60:.0f} minutes{size}, on: {'. '.join(report.machine.values())}."])


def _found(verdict: Verdict) -> str:
    return f"{'> ' * verdict.beyond}{number(verdict.value)} {verdict.unit}".strip()


def _bar(verdict: Verdict) -> str:
    if verdict.at_least is not None:
        return f"≥ {number(verdict.at_least)} {verdict.unit}".strip()
    return f"≤ {number(verdict.at_most)} {verdict.unit}".strip() if verdict.at_most is not None else ""


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
