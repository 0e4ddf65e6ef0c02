"""What processes use: processor time and memory. Linux only, like the benchmark.

Two processors are shared by the bridge, Redis, the broker and whoever measures, so wall-clock rates depend on all of
them; a process's own processor time does so much less.
"""

import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.bench.case import Figures

MEBIBYTE = 1 << 20
_PROCESS_CLOCK = 2
"""CPUCLOCK_SCHED: with the process id it is the id of a clock, which counts in ns what all its threads have used."""


def cpu_seconds(pid: int) -> float:
    """Processor time that the process has used, with its threads, those that ended included."""
    return time.clock_gettime(~pid << 3 | _PROCESS_CLOCK)


def waited_seconds(pid: int) -> float:
    """How long the threads of the process could have run, and waited for a processor that others had."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[1]) for thread in threads) / 1e9


def cpu_seconds_of_children() -> float:
    """Processor time of all child processes of ours that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resident_bytes(pid: int) -> int:
    """Resident memory of the process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has ended")


@dataclass(frozen=True)
class Usage:
    """Processor time used since a moment, by the name of the process."""

    pids: Mapping[str, int]
    since: Mapping[str, float]

    @classmethod
    def begin(cls, **pids: int) -> Self:
        """From now on."""
        return cls(pids, {name: cpu_seconds(pid) for name, pid in pids.items()})

    @classmethod
    def of_all(cls, **pids: int) -> Self:
        """From the start of the processes."""
        return cls(pids, dict.fromkeys(pids, 0.0))

    def seconds(self) -> dict[str, float]:
        """By process, so far."""
        return {name: cpu_seconds(pid) - self.since[name] for name, pid in self.pids.items()}

    def per_event(self, events: int) -> Figures:
        """Microseconds for each of so many events: `<process>_cpu_us`."""
        return {f"{name}_cpu_us": seconds / events * 1e6 for name, seconds in self.seconds().items()}
