"""Measures the variants of a case in turn, and has the case judge their medians."""

import asyncio
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.case import Case, Figures, Medians, Verdict
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


async def run(case: Case, scale: float, runs: int | None, tell: Callable[[str], None]) -> Result:
    """Measure one case. `runs`: how often each variant, unless as the case says. `tell` hears of each."""
    begun = time.monotonic()
    samples: dict[str, list[Figures]] = {}
    failure, complete = "", False
    try:
        async with asyncio.timeout(TOO_LONG * case.seconds), case.opened(scale) as variants:
            for turn in range(runs or case.runs):
                passed = time.monotonic() - begun
                if turn and runs is None and passed * (turn + 1) / turn > case.seconds:
                    break
                for name, variant in variants.items():
                    figures = await variant()
                    samples.setdefault(name, []).append(figures)
                    tell(f"{case.name}: {name}: {', '.join(f'{key} {value:.4g}' for key, value in figures.items())}")
                complete = True
    except Exception as error:  # noqa: BLE001 - what the other cases find must not be lost with it
        failure = f"{type(error).__name__} after {time.monotonic() - begun:.0f} s"
        tell(f"{case.name}: {failure}\n{traceback.format_exc()}")
    medians = {name: median(found) for name, found in samples.items()}
    return Result(
        case.name,
        case.title,
        case.question,
        time.monotonic() - begun,
        samples,
        medians,
        case.judge(medians) if complete else [],
        case.charts(medians) if complete else [],
        failure,
    )
