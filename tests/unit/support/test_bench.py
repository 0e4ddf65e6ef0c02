"""How the benchmark judges and shows what it finds."""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from xml.etree import ElementTree as ET

import pytest

from tests.bench.case import Figures, Medians, Variant, Verdict
from tests.bench.cases.lag import Lag
from tests.bench.chart import Bar, Chart, cost_of, number, svg
from tests.bench.figures import median, percentile
from tests.bench.report import Report, verdicts
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
    assert result.failure.startswith("TimeoutError after ")
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
        "run (bridge/__main__.py:8);Delivery._settle_acked (bridge/delivery/loop.py:9)"
        ";Outbox.settle (bridge/redis/outbox.py:7);Ledger.settle (bridge/redis/ledger.py:7);execute (redis/x.py:1) 3\n"
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
