"""What was found: as JSON, as SVG, and as the tables of RESULTS.md."""

import json
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from tests.bench.case import Figures, Verdict
from tests.bench.chart import PARTS, Chart, number, svg
from tests.bench.runner import Result

PUBLISHED: Final = Path(__file__).resolve().parent / "results"
"""What RESULTS.md shows."""
FILE: Final = "results.json"
SHOWN: Final = {"throughput-jetstream", "throughput-kafka", "lag", "peers"}
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


def write(report: Report, directory: Path, drawn: Collection[str] | None = None) -> None:
    """The figures as JSON, and the charts: of the cases `drawn`, by name, where the others' are there already."""
    directory.mkdir(parents=True, exist_ok=True)
    figures = _rounded(_FORMAT.dump_python(report))
    (directory / FILE).write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    for result in report.results:
        for chart in result.charts if drawn is None or result.name in drawn else ():
            (directory / f"{chart.name}.svg").write_text(svg(chart))


def read(directory: Path) -> Report:
    """What `write` wrote there."""
    return _FORMAT.validate_json((directory / FILE).read_bytes())


def joined(published: Report, found: Report, order: Sequence[str]) -> Report:
    """What was published, with the cases that were measured since in the place of the same ones. `order` is by name.

    Those say for themselves on what they were measured: figures of one run are comparable with no others.
    """
    kept = {result.name: result for result in published.results}
    kept |= {result.name: replace(result, apart=_machine(found, [result])) for result in found.results}
    results = [kept[name] for name in order if name in kept]
    return replace(published, results=results, stages=found.stages or published.stages)


def published() -> str:
    """Its part of RESULTS.md, in Markdown."""
    if not (PUBLISHED / FILE).exists():
        return "Not measured yet.\n"
    report = read(PUBLISHED)
    charts = [chart for result in report.results for chart in result.charts]
    shown = [_image(chart) for chart in charts if chart.name in SHOWN]
    more = [_image(chart) for chart in charts if chart.name not in SHOWN]
    folded = ["<details>", "<summary>More charts</summary>", "", *more, "", "</details>", ""] if more else []
    questions = [f"* *{result.title}*: {result.question}" for result in report.results]
    found, *others = tables(report)
    together = [result for result in report.results if not result.apart]
    apart = [f"*{result.title}*, apart from the others. {result.apart}" for result in report.results if result.apart]
    return "\n".join(
        [*questions, "", found, *shown, "", *others, *folded, "\n\n".join([_machine(report, together), *apart]), ""]
    )


def tables(report: Report) -> list[str]:
    """All of them, in Markdown."""
    own = [_table(result) for result in report.results if result.rows]
    return [verdicts(report), *own, costs(report), *([stages(report)] if report.stages else [])]


def verdicts(report: Report) -> str:
    """What was found, beside the bars."""
    pairs = any(result.before for result in report.results)
    rows = ["| case | figure | found | bar | |", "|---|---|---|---|---|"]
    if pairs:
        rows = ["| case | figure | found | before | ratio | bar | |", "|---|---|---|---|---|---|---|"]
    for result in report.results:
        title = result.title
        for verdict in result.verdicts:
            before = f" {_before(verdict)} |" if pairs else ""
            rows.append(
                f"| {title} | {verdict.what} | {_found(verdict)} |{before} {_bar(verdict)} | {_mark(verdict)} |"
            )
            title = ""
        if result.failure:
            rows.append(f"| {title} | | | |{' | |' if pairs else ''} **failed**: {result.failure} |")
    return _lines(rows)


def costs(report: Report) -> str:
    """The processor time of one event, by process."""
    rows = [
        f"| case | variant | runs | events/s | {' | '.join(f'{part}, µs' for part in PARTS)} |",
        f"|---|---|---|---|{'---|' * len(PARTS)}",
    ]
    for result in report.results:
        title = result.title
        for variant, now in result.medians.items():
            runs = len(result.samples[variant])
            pair = [(variant, now)] + (
                [(f"{variant}, before", result.before[variant])] if variant in result.before else []
            )
            for said, figures in pair:
                used = [figures.get(f"{part}_cpu_us") for part in PARTS]
                if "rate_per_s" in figures:
                    cells = ["–" if value is None else number(value) for value in used]
                    rows.append(
                        f"| {title} | {said} | {runs} | {number(figures['rate_per_s'])} | {' | '.join(cells)} |"
                    )
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


def _table(result: Result) -> str:
    head, *rows = [f"| {' | '.join(row)} |" for row in result.rows]
    return _lines([f"*{result.title}*:", "", head, "|" + "---|" * len(result.rows[0]), *rows])


def _machine(report: Report, results: Iterable[Result]) -> str:
    seconds = sum(result.seconds for result in results)
    size = "" if report.scale == 1 else f", with {report.scale:g} times as many keys as are told of"
    return f"Measured in {seconds / 60:.0f} minutes{size}, on: {'. '.join(report.machine.values())}."


def _found(verdict: Verdict) -> str:
    return f"{'> ' * verdict.beyond}{number(verdict.value)} {verdict.unit}".strip()


def _before(verdict: Verdict) -> str:
    if verdict.before is None:
        return "|"
    return f"{number(verdict.before)} {verdict.unit}".strip() + " | " + number(verdict.ratio or math.nan)


def _bar(verdict: Verdict) -> str:
    bars = []
    if verdict.at_least is not None:
        bars.append(f"≥ {number(verdict.at_least)} {verdict.unit}".strip())
    if verdict.at_most is not None:
        bars.append(f"≤ {number(verdict.at_most)} {verdict.unit}".strip())
    if verdict.at_most_of_before is not None:
        bars.append(f"≤ {number(verdict.at_most_of_before)} of before")
    return "; ".join(bars)


def _mark(verdict: Verdict) -> str:
    if not verdict.judged:
        return f"not judged here: a bare timer and an echo took {number(verdict.control or 0)} {verdict.unit}"
    of_before = verdict.at_most_of_before is not None and verdict.ratio is not None
    if verdict.at_least is None and verdict.at_most is None and not of_before:
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
