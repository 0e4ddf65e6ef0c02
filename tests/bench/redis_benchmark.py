"""Redis's own load generator: many connections, each of which waits for its answer, as services do."""

import csv
import os
import shutil
from collections.abc import Mapping, Sequence

from bridge.commands.embedded import Process, Unavailable
from tests.bench.case import Figures
from tests.bench.stage import AN_HOUR, PREFIX, VALUE
from tests.support.servers import TOOLS, wait_until

CONNECTIONS = 50
NAMES = 1_000_000_000
"""So many keys to choose from at random: nearly each one is new."""
PATIENCE = 120.0


class RedisBenchmark(Process):
    """`SET … EX`, so many times, as fast as it goes."""

    def __init__(self, port: int, count: int) -> None:
        super().__init__("redis-benchmark")
        self._port = port
        self._count = count

    def command(self) -> Sequence[str]:
        """See `Process`."""
        program = shutil.which("redis-benchmark", path=f"{TOOLS}{os.pathsep}{os.environ.get('PATH', '')}")
        if program is None:
            raise Unavailable("redis-benchmark is not there: it comes with redis-tools, or with Redis itself")
        options = {"-p": self._port, "-c": CONNECTIONS, "-n": self._count, "-r": NAMES}
        words = [str(word) for option in options.items() for word in option]
        return [program, *words, "--csv", "SET", f"{PREFIX}:__rand_int__", VALUE, "EX", f"{AN_HOUR:.0f}"]

    def environment(self) -> Mapping[str, str]:
        """See `Process`."""
        return os.environ

    async def found(self) -> Figures:
        """What it says. Raises RuntimeError if it failed."""
        await wait_until(lambda: not self.running, lambda: f"redis-benchmark\n{self.log()}", PATIENCE)
        if self.returncode:
            raise RuntimeError(f"redis-benchmark failed\n{self.log()}")
        (row,) = csv.DictReader(self.output().splitlines())
        return {"events": self._count, "rate_per_s": float(row["rps"]), "p99_ms": float(row["p99_latency_ms"])}
