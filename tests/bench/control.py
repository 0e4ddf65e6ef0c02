"""The control: what the machine itself makes of a short wait and of an echo, in the same seconds as a measurement.

On a machine that others use, an absolute bar says as much about them as about the bridge. Where the control alone takes
more than a third of a bar, the bar is not judged (`case.Verdict.judged`).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.bench.case import Figures
from tests.bench.worker import Worker

FIGURE: Final = "control_p99_ms"
"""Where it stands among the figures of a variant."""


@asynccontextmanager
async def controlled(figures: Figures) -> AsyncIterator[None]:
    """Adds the control's p99 to the figures: how late a bare timer was, plus what an echo on loopback took."""
    with Worker("control") as control:
        await control.ready()
        yield
        control.end()
        figures[FIGURE] = await control.found()
