"""Bars, as SVG: enough for a README, without a library."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 760
LABEL_WIDTH: Final = 220
VALUE_WIDTH: Final = 130
BAR_HEIGHT: Final = 20
STEP: Final = 28
TOP: Final = 44
SHORTEST: Final = 0.1
"""On a logarithmic scale, which begins at a power of ten, the length of the smallest bar at least: in decades."""

PARTS: Final = {"client": "#9a6fb0", "bridge": "#2f6fb0", "redis": "#d9822b", "broker": "#4c9a5b"}
"""Processes have the same colour in all charts, and the same order."""
DELAYS: Final = {
    "≤ 10 ms": "#1f6f3f",
    "≤ 100 ms": "#5aa469",
    "≤ 1 s": "#a8cf8e",
    "≤ 10 s": "#f0c75e",
    "later": "#d9822b",
    "lost": "#b3261e",
}
"""How late, likewise."""
COLOURS: Final = PARTS | DELAYS
LEGEND_STEP: Final = 85


@dataclass(frozen=True)
class Bar:
    """One bar, of one part or of several, one behind the other."""

    label: str
    parts: Mapping[str, float]
    """By names of `COLOURS`."""
    said: str = ""
    """The value in words; the sum if empty."""

    @property
    def total(self) -> float:
        """Its length."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Chart:
    """Horizontal bars of one unit."""

    name: str
    """Of the file."""
    title: str
    unit: str
    bars: Sequence[Bar]
    logarithmic: bool = False
    """Only for bars of one part."""


def cost_of(label: str, figures: Mapping[str, float]) -> Bar:
    """The processor time of one event, by process: what `Usage.per_event` has found."""
    suffix = "_cpu_us"
    used = {name.removesuffix(suffix): value for name, value in figures.items() if name.endswith(suffix)}
    return Bar(label, {name: used[name] for name in PARTS if name in used})


def svg(chart: Chart) -> str:
    """The chart as a document."""
    names = [name for name in COLOURS if any(name in bar.parts for bar in chart.bars)]
    height = TOP + STEP * len(chart.bars) + (28 if len(names) > 1 else 8)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        "<style>text { font: 13px system-ui, sans-serif }</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="24" style="font-size: 15px; font-weight: 600">{escape(chart.title)}</text>',
    ]
    for index, bar in enumerate(chart.bars):
        lines += _bar(chart, bar, TOP + STEP * index)
    if len(names) > 1:
        lines += _legend(names, TOP + STEP * len(chart.bars) + 8)
    return "\n".join([*lines, "</svg>", ""])


def number(value: float) -> str:
    """A value with three digits that count."""
    if not math.isfinite(value):
        return "–"
    digits = 0 if value == 0 else 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(digits, 0)}f}"


def _bar(chart: Chart, bar: Bar, top: int) -> list[str]:
    lines = [f'<text x="{LABEL_WIDTH - 8}" y="{top + 15}" text-anchor="end">{escape(bar.label)}</text>']
    x = float(LABEL_WIDTH)
    for name, value in bar.parts.items():
        width = _length(chart, value)
        colour = COLOURS[name]
        lines.append(f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="{BAR_HEIGHT}" fill="{colour}"/>')
        x += width
    said = bar.said or f"{number(bar.total)} {chart.unit}"
    lines.append(f'<text x="{x + 6:.1f}" y="{top + 15}">{escape(said)}</text>')
    return lines


def _length(chart: Chart, value: float) -> float:
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH
    largest = max(bar.total for bar in chart.bars) or 1.0
    if not chart.logarithmic:
        return room * value / largest
    smallest = min((bar.total for bar in chart.bars if bar.total > 0), default=largest)
    origin = 10.0 ** math.floor(math.log10(smallest) - SHORTEST)
    return room * math.log(value / origin) / math.log(largest / origin) if value > 0 else 0.0


def _legend(names: Sequence[str], top: int) -> list[str]:
    lines = []
    for index, name in enumerate(names):
        x, colour = LABEL_WIDTH + LEGEND_STEP * index, COLOURS[name]
        lines += [
            f'<rect x="{x}" y="{top}" width="12" height="12" fill="{colour}"/>',
            f'<text x="{x + 17}" y="{top + 11}">{escape(name)}</text>',
        ]
    return lines
