"""A process of the benchmark's own, beside those it measures: it does one thing, and prints what came of it as JSON."""

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bridge.commands.embedded import Process
from tests.bench.spoken import READY
from tests.support.servers import ROOT, wait_until


class Worker(Process):
    """A module of `tests/bench/workers/`: `with Worker("nats_limit", url=…) as worker: await worker.found()`."""

    def __init__(self, module: str, **arguments: str | float) -> None:
        super().__init__(module)
        self._module = f"tests.bench.workers.{module}"
        self._arguments = arguments

    def command(self) -> Sequence[str]:
        """See `Process`."""
        return [sys.executable, "-m", self._module, json.dumps(self._arguments)]

    def environment(self) -> Mapping[str, str]:
        """See `Process`."""
        passed_on = {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}
        return {**passed_on, "PYTHONPATH": str(ROOT)}

    async def ready(self) -> None:
        """Return when it has begun to listen."""
        await wait_until(lambda: self._said(READY) or not self.running, f"{self.name} to be ready")
        if not self._said(READY):
            raise RuntimeError(f"{self.name} failed\n{self.log()}")

    def end(self) -> None:
        """Ask it to end: one that works until then."""
        self.send_signal(signal.SIGTERM)

    async def found(self, timeout: float = 120.0) -> Any:  # noqa: ANN401 - what JSON can be
        """What it printed last. Raises RuntimeError if it failed."""
        await wait_until(lambda: not self.running, lambda: f"the end of {self.name}\n{self.log()}", timeout)
        if self.returncode:
            raise RuntimeError(f"{self.name} failed\n{self.log()}")
        return json.loads(self.output().splitlines()[-1])

    def _said(self, word: str) -> bool:
        return word in self.output().split()
