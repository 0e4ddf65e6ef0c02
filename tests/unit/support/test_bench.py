"""How the benchmark judges and shows what it finds."""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.bench.builds import Build, build_to_start
from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.cases.lag import Lag
from tests.bench.chart import Bar, Chart, cost_of, number, svg
from tests.bench.figures import median, percentile
from tests.bench.report import Report, joined, tables, verdicts
from tests.bench.runner import Result, run
from tests.bench.stages import OTHER, folded

FIGURES = ("bridge_p50_ms", "bridge_p99_ms", "own_p50_ms", "own_p99_ms")


class Made:
    """A case whose first variant finds 1, 2, 3…, its second the same, doubled."""

    name, title, question, runs = "made", "Made", "In what order are variants measured?", 3

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.order: list[str] = []

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        yield {"one": partial(self._measured, "one", scale), "two": partial(self._measured, "two", 2 * scale)}

    async def _measured(self, name: str, factor: float) -> Figures:
        self.order.append(name)
        return {"figure": factor * self.order.count(name)}

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        return [Verdict("two ÷ one", medians["two"]["figure"] / medians["one"]["figure"], at_least=2.0)]

    def charts(self, medians: Medians) -> Sequence[Chart]:
        return []


async def test_variants_are_measured_in_turn_and_their_medians_are_judged() -> None:
    case, told = Made(seconds=math.inf), list[str]()
    result = await run(case, 10.0, None, told.append)
    assert case.order == ["one", "two"] * 3
    assert result.medians == {"one": {"figure": 20.0}, "two": {"figure": 40.0}}
    assert result.verdicts[0].reached
    assert told[0] == "made: one: figure 10"


@pytest.mark.parametrize(("runs", "turns"), [(None, 1), (2, 2)])
async def test_where_a_case_takes_too_long_there_is_one_turn_unless_more_are_asked_for(
    runs: int | None, turns: int
) -> None:
    case = Made(seconds=1e-9)
    await run(case, 1.0, runs, list[str]().append)
    assert case.order == ["one", "two"] * turns


class Broken(Made):
    """Its second variant hangs, in the second turn: the first time, the servers are well."""

    async def _measured(self, name: str, factor: float) -> Figures:
        found = await super()._measured(name, factor)
        if self.order == self.until:
            await asyncio.Event().wait()
        return found

    until: Sequence[str] = ()


@pytest.mark.parametrize(("until", "judged"), [(["one", "two"], False), (["one", "two", "one", "two"], True)])
async def test_a_case_that_hangs_ends_with_what_it_has_found(
    monkeypatch: pytest.MonkeyPatch, until: list[str], *, judged: bool
) -> None:
    monkeypatch.setattr("tests.bench.runner.TOO_LONG", 1.0)
    monkeypatch.setattr(Broken, "until", until)
    result = await run(Broken(seconds=0.3), 1.0, 3, list[str]().append)
    assert result.failure == "took too long: more than 0 s"
    assert bool(result.verdicts) is judged
    assert result.medians["one"] == {"figure": 1.5 if judged else 1.0}


def test_a_figure_that_was_given_up_at_is_said_to_be_more() -> None:
    medians = {name: dict.fromkeys(FIGURES, own) for name, own in (("few", 10.0), ("many", 4000.0))}
    own = [verdict for verdict in Lag().judge(medians) if "own" in verdict.what]
    report = Report({}, 1.0, None, [Result("lag", "Lag", "", 1.0, {}, {}, own, [])], {})
    assert "| 10.0 ms |" in verdicts(report)
    assert "| > 3,000 ms |" in verdicts(report)


def test_a_bar_is_reached_or_missed_and_what_has_none_only_informs() -> None:
    assert Verdict("rate", 0.6, at_least=0.6).reached
    assert not Verdict("rate", 0.59, at_least=0.6).reached
    assert Verdict("lag", 5.0, "ms", at_most=5.0).reached
    assert not Verdict("lag", 5.1, "ms", at_most=5.0).reached
    assert Verdict("rate", 1.0, "/s").reached


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0"), (0.12345, "0.123"), (5.0, "5.00"), (98.76, "98.8"), (1234.5, "1,230"), (1e6, "1,000,000")],
)
def test_a_number_is_said_with_three_digits_that_count(value: float, said: str) -> None:
    assert number(value) == said


def test_medians_and_percentiles() -> None:
    assert median([{"a": 1.0, "b": 9.0}, {"a": 3.0, "b": 1.0}, {"a": 2.0, "b": 5.0}]) == {"a": 2.0, "b": 5.0}
    assert percentile(list(range(1000)), 99) == 990
    assert percentile([7.0], 99) == 7.0


def test_a_sample_belongs_to_the_stage_of_the_innermost_function_that_has_one() -> None:
    stages = folded(
        "run (bridge/__main__.py:8);Delivery._publish (bridge/delivery/loop.py:9);encode (bridge/cloudevents.py:53) 6\n"
        "run (bridge/__main__.py:8);Delivery._settle_done (bridge/delivery/loop.py:9);Outbox.settle"
        " (bridge/redis/ledger/outbox.py:7);Ledger.settle (bridge/redis/ledger/scripts.py:7);x (redis/x.py:1) 3\n"
        "run (bridge/__main__.py:8);select (selectors.py:468) 1\n"
    )
    assert {stage: share for stage, share in stages.items() if share} == {"encode": 0.6, "settle": 0.3, OTHER: 0.1}


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_chart_is_well_formed_and_no_bar_is_longer_than_its_room(*, logarithmic: bool) -> None:
    bars = [Bar("<a & b>", {"bridge": 0.001}), Bar("c", {"redis": 3_000.0}), Bar("nothing", {"broker": 0.0})]
    drawn = ET.fromstring(svg(Chart("name", 'a "title"', "ms", bars, logarithmic=logarithmic)))  # noqa: S314 - our own
    widths = [float(rect.get("width", "")) for rect in drawn.iter("{http://www.w3.org/2000/svg}rect")]
    longest, *lengths = widths
    assert all(0 <= length < longest for length in lengths)


def test_costs_are_shown_by_process_in_the_same_order() -> None:
    bar = cost_of("bridge", {"rate_per_s": 1.0, "broker_cpu_us": 3.0, "bridge_cpu_us": 1.0})
    assert list(bar.parts.items()) == [("bridge", 1.0), ("broker", 3.0)]
    assert bar.total == 4.0


def test_a_bar_is_not_judged_where_the_control_takes_more_than_a_third_of_it() -> None:
    noisy = Verdict("lag", 50.0, "ms", at_most=9.0, control=3.1)
    quiet = Verdict("lag", 50.0, "ms", at_most=9.0, control=3.0)
    assert (noisy.judged, noisy.reached) == (False, True)
    assert (quiet.judged, quiet.reached) == (True, False)
    report = Report({}, 1.0, None, [Result("lag", "Lag", "", 1.0, {}, {}, [noisy], [])], {})
    assert "| ≤ 9.00 ms | not judged here: a bare timer and an echo took 3.10 ms |" in verdicts(report)


class Compared(Made):
    """Its first variant runs a bridge, of which an older one is twice as slow; its third is new."""

    @asynccontextmanager
    async def opened(self, scale: float) -> AsyncIterator[Mapping[str, Variant]]:
        yield {
            "one": partial(self._bridged, "one", scale),
            "two": partial(self._measured, "two", scale),
            "new": partial(self._bridged, "new", scale),
        }

    async def _bridged(self, name: str, factor: float) -> Figures:
        build = build_to_start()
        if build.name and name == "new":
            raise RuntimeError("no such setting")
        return await self._measured(f"{name}{build.name}", factor * (2 if build.name else 1))

    def judge(self, medians: Medians) -> Sequence[Verdict]:
        return [
            Verdict("one", medians["one"]["figure"], "s", at_most_of_before=0.4),
            Verdict("two ÷ one", medians["two"]["figure"] / medians["one"]["figure"]),
            Verdict("new", medians["new"]["figure"], "s", at_most_of_before=0.4),
        ]


async def test_an_older_bridge_is_measured_in_turn_with_this_one_where_there_is_one_at_all() -> None:
    case, old = Compared(seconds=math.inf), Build("old", Path("python"), Path())
    result = await run(case, 1.0, 2, list[str]().append, old)
    assert case.order == ["one", "oneold", "two", "new"] * 2
    assert not result.failure
    assert result.before == {"one": {"figure": 3.0}}
    assert [(verdict.before, verdict.ratio, verdict.reached) for verdict in result.verdicts] == [
        (3.0, 0.5, False),
        (0.5, 2.0, True),
        (None, None, True),
    ]
    shown = verdicts(Report({}, 1.0, None, [result], {}))
    assert "| one | 1.50 s | 3.00 s | 0.500 | ≤ 0.400 of before | **missed** |" in shown
    assert len({line.count("|") for line in shown.splitlines()}) == 1


class Shown(Made):
    """It has a table of its own."""

    def table(self, medians: Medians) -> Sequence[Sequence[str]]:
        return [["variant", "figure"], *([name, number(found["figure"])] for name, found in medians.items())]


async def test_a_case_may_show_its_variants_in_a_table_of_its_own() -> None:
    result = await run(Shown(seconds=math.inf), 1.0, 1, list[str]().append)
    _, own, _ = tables(Report({}, 1.0, None, [result], {}))
    assert own == "*Made*:\n\n| variant | figure |\n|---|---|\n| one | 1.00 |\n| two | 2.00 |\n"
    cut = await run(Shown(seconds=math.inf), 1.0, 1, list[str]().append, only="one")
    assert not cut.rows


def test_single_cases_are_published_beside_the_others_and_say_on_what_they_were_measured() -> None:
    def result(name: str, seconds: float) -> Result:
        return Result(name, name.title(), "", seconds, {}, {}, [Verdict("figure", seconds, "s")], [])

    old = Report({"load": "Load: 1"}, 1.0, None, [result("lag", 60.0), result("scan", 120.0)], {"encode": 1.0})
    new = Report({"load": "Load: 9"}, 1.0, None, [result("peers", 180.0), result("scan", 240.0)], {})
    both = joined(old, new, ["lag", "peers", "scan"])
    assert [(one.name, one.seconds, one.apart) for one in both.results] == [
        ("lag", 60.0, ""),
        ("peers", 180.0, "Measured in 3 minutes, on: Load: 9."),
        ("scan", 240.0, "Measured in 4 minutes, on: Load: 9."),
    ]
    assert (both.machine, both.stages) == (old.machine, old.stages)
