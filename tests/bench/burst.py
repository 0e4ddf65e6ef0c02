"""Recorded keys that expire at once: from their common deadline until the last of them is acked and settled.

The deadline is the beginning. Redis's first notification comes a moment later: the bridge causes it by its own touch.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

from tests.bench.case import Figures
from tests.bench.stage import BareBridge, Stage, TooLate, in_seconds, until
from tests.bench.usage import Usage

LEAD_SECONDS = 1.0
RECORDED_PER_SECOND = 40_000
"""How far ahead the deadline is at first: so many keys a second are set, and recorded from their notifications."""
ATTEMPTS = 4


class Lead:
    """How far ahead deadlines must be for all keys to be recorded by then: learned where they were not."""

    def __init__(self) -> None:
        self._factor = 1.0

    def seconds(self, count: int) -> float:
        """For so many keys."""
        return self._factor * (LEAD_SECONDS + count / RECORDED_PER_SECOND)

    def longer(self) -> None:
        """It was not enough."""
        self._factor *= 1.7


LEAD = Lead()


@asynccontextmanager
async def recorded(
    stage: Stage, count: int, *, others: int = 0, settings: Mapping[str, str] | None = None, longer: float = 0.0
) -> AsyncIterator[tuple[BareBridge, int]]:
    """A bridge, with these settings, that has recorded so many keys; and their common deadline, still ahead.

    It has also recorded `others` keys that stay. The deadline comes `longer` seconds after all are recorded.

    Raises TooLate: it is past. A longer lead is used next time.
    """
    await stage.fill_for_long(others, first=count)
    async with stage.bridge(**(settings or {})) as bridge:
        await bridge.ready()
        await stage.recorded(others)
        deadline_ms = in_seconds(LEAD.seconds(count) + longer)
        await stage.fill(count, deadline_ms)
        try:
            await stage.recorded(others + count, deadline_ms - 50)
        except TooLate:
            LEAD.longer()
            raise
        yield bridge, deadline_ms


async def burst(
    stage: Stage, bridge: BareBridge, count: int, deadline_ms: int, *, others: int = 0, **pids: int
) -> Figures:
    """What it takes for `count` recorded keys to expire, with the processor time of the processes `pids`."""
    await until(deadline_ms - 20)
    usage = Usage.begin(bridge=bridge.pid, redis=stage.server.pid, **pids)
    await until(deadline_ms + 1)
    seconds = await stage.settled(others) - deadline_ms / 1000
    return figures_of(count, seconds, usage)


def figures_of(count: int, seconds: float, *usages: Usage) -> Figures:
    """What `count` events in so many seconds are, for each of them."""
    figures: Figures = {"events": count, "seconds": seconds, "rate_per_s": count / seconds}
    for usage in usages:
        figures |= usage.per_event(count)
    return figures


def missing(stored: int, count: int) -> None:
    """Raises RuntimeError unless all are stored: fast and wrong counts for nothing."""
    if stored < count:
        raise RuntimeError(f"{count} keys expired, and {stored} expirations are stored")


async def retried(measure: Callable[[], Awaitable[Figures]]) -> Figures:
    """What it measures, again if the keys were due too early."""
    for _ in range(ATTEMPTS - 1):
        with suppress(TooLate):
            return await measure()
    return await measure()
