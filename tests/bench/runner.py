"""Measures the variants of a case in turn, and has the case judge their medians."""

import asyncio
import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.bench.builds import THIS, Build, measuring
from tests.bench.case import Case, Figures, Medians, Tabled, Variant, Verdict
from tests.bench.chart import Chart
from tests.bench.figures import median

TOO_LONG = 4.0
"""How many times its seconds a case may take until it has failed: what hangs shall end."""


@dataclass(frozen=True)
class Result:
    """What one case found."""

    name: str
    title: str
    question: str
    seconds: float
    samples: dict[str, list[Figures]]
    """By variant, in the order in which they were measured."""
    medians: Medians
    verdicts: Sequence[Verdict]
    charts: Sequence[Chart]
    failure: str = ""
    """Why it was not measured to its end: then it may lack variants, and is judged only where it does not."""
    before: Medians = field(default_factory=dict)
    """What an older bridge had, in the same turns; without the variants that run no bridge."""
    rows: Sequence[Sequence[str]] = ()
    """The case's own table, if it has one: see `Tabled`."""
    apart: str = ""
    """On what it was measured, where that was not in the run of the others."""


async def run(
    case: Case,
    scale: float,
    runs: int | None,
    tell: Callable[[str], None],
    against: Build | None = None,
    only: str = "",
) -> Result:
    """Measure one case. `runs`: how often each variant, unless as the case says. `tell` hears of each.

    `against`: an older bridge, which is measured in turn with this one. `only`: nothing but variants whose names
    contain it; then nothing is judged.
    """
    measured = _Measured(case, tell, against)
    allowed = TOO_LONG * case.seconds * (1 if against is None else 2)
    begun = time.monotonic()
    try:
        async with asyncio.timeout(allowed) as limit, case.opened(scale) as variants:
            for turn in range(runs or case.runs):
                passed = time.monotonic() - begun
                if turn and runs is None and passed * (turn + 1) / turn > case.seconds:
                    break
                await measured.turn({name: variant for name, variant in variants.items() if only in name})
                measured.complete = not only
    except Exception as error:  # noqa: BLE001 - what the other cases find must not be lost with it
        measured.failure = f"{type(error).__name__} after {time.monotonic() - begun:.0f} s"
        if limit.expired():
            measured.failure = f"took too long: more than {allowed:.0f} s"
        tell(f"{case.name}: {measured.failure}\n{traceback.format_exc()}")
    return measured.result(time.monotonic() - begun)


class _Measured:
    """What one case has found by now."""

    def __init__(self, case: Case, tell: Callable[[str], None], against: Build | None) -> None:
        self.failure = ""
        self.complete = False
        """Whether there is something of each variant."""
        self._case = case
        self._tell = tell
        self._against = against
        self._samples: dict[str, list[Figures]] = {}
        self._before: dict[str, list[Figures]] = {}
        self._not_before: set[str] = set()
        """Variants of which the older bridge is not capable."""

    async def turn(self, variants: Mapping[str, Variant]) -> None:
        """Measure each variant once; and with the older bridge, where it runs one."""
        for name, variant in variants.items():
            with measuring(THIS) as turn:
                self._take(self._samples, name, await variant())
            if self._against is not None and turn.bridges and name not in self._not_before:
                await self._measure_before(self._against, name, variant)

    async def _measure_before(self, against: Build, name: str, variant: Variant) -> None:
        """What an older bridge cannot do makes no pair, and fails no case."""
        try:
            with measuring(against):
                self._take(self._before, name, await variant(), f" ({against.name})")
        except Exception as error:  # noqa: BLE001 - see above
            self._not_before.add(name)
            self._before.pop(name, None)
            self._tell(f"{self._case.name}: {name} ({against.name}): not measured: {type(error).__name__}: {error}")

    def result(self, seconds: float) -> Result:
        """All of it, judged."""
        case = self._case
        medians, before = (
            {name: median(found) for name, found in those.items()} for those in (self._samples, self._before)
        )
        verdicts = case.judge(medians) if self.complete else []
        if self.complete and before:
            unknown = {name: dict.fromkeys(medians[name], math.nan) for name in self._not_before}
            values = {verdict.what: verdict.value for verdict in case.judge({**medians, **before, **unknown})}
            known = {what: value for what, value in values.items() if math.isfinite(value)}
            verdicts = [replace(verdict, before=known.get(verdict.what)) for verdict in verdicts]
        charts = case.charts(medians) if self.complete else []
        rows = case.table(medians) if self.complete and isinstance(case, Tabled) else ()
        return Result(
            case.name,
            case.title,
            case.question,
            seconds,
            self._samples,
            medians,
            verdicts,
            charts,
            self.failure,
            before,
            rows,
        )

    def _take(self, samples: dict[str, list[Figures]], name: str, figures: Figures, of: str = "") -> None:
        samples.setdefault(name, []).append(figures)
        said = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
        self._tell(f"{self._case.name}: {name}{of}: {said}")
