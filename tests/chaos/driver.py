"""Faults, one after the other and two at a time: `Driver.run` strikes and fixes until its time is over.

A fault holds what it strikes, its *victims*, until it is fixed, and nothing else strikes them meanwhile: so whatever
is struck can be fixed, and when the driver is done, all is.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.faults import Fault, Target, bridge_name
from tests.chaos.topology import Topology
from tests.support.deployments.scene import Scene, now_ms
from tests.support.servers import Bridge

HANDS = 2
"""Faults at a time, at most."""
CALM = 12.0
"""Seconds between two faults of one hand, at most: some are long enough for a gap to be closed. Less in a short
run, so that there are some.
"""
WATCH_SECONDS = 0.25


class Driver:
    """Strikes a deployment with its bridges."""

    def __init__(self, topology: Topology[Scene], faults: Sequence[Fault], chance: random.Random) -> None:
        self.target = Target(topology, chance)
        self._faults = faults
        self.struck: Counter[str] = Counter()
        """How often each fault was."""
        self.most_kib = 0
        """Of memory, that a bridge ever had resident."""
        self.diary: list[str] = []
        """When what was struck and fixed."""
        self._held: set[str] = set()

    async def run(self, seconds: float) -> None:
        """Strike until the time is over; return when all is fixed."""
        end, calm = asyncio.get_running_loop().time() + seconds, min(CALM, seconds / 4)
        async with asyncio.TaskGroup() as hands:
            for number in range(HANDS):
                hands.create_task(self._strike_until(end, calm), name=f"hand {number}")

    async def watch(self) -> None:
        """See to it, until cancelled, that bridges live, and how much memory they take."""
        while True:
            for number, bridge in enumerate(self.target.scene.bridges):
                if bridge_name(number) in self._held:
                    continue
                if bridge.running:
                    self.most_kib = max(self.most_kib, most_resident(bridge))
                else:
                    self.target.ends.append(f"bridge {number} ended with status {bridge.returncode}")
                    bridge.start()
            await asyncio.sleep(WATCH_SECONDS)

    async def _strike_until(self, end: float, calm: float) -> None:
        loop, chance = asyncio.get_running_loop(), self.target.chance
        while True:
            await asyncio.sleep(min(chance.uniform(0, calm), max(end - loop.time(), 0)))
            if loop.time() >= end:
                return
            free = [fault for fault in self._faults if self._held.isdisjoint(fault.victims)]
            if not free:
                continue
            fault = chance.choices(free, [fault.weight for fault in free])[0]
            self.struck[fault.name] += 1
            self._held |= fault.victims
            self._note("strikes", fault)
            try:
                async with fault.work(self.target):
                    await asyncio.sleep(min(chance.uniform(*fault.seconds), max(end - loop.time(), fault.seconds[0])))
            except Exception as error:
                error.add_note(f"while striking or fixing: {fault.name}")
                raise
            self._held -= fault.victims
            self._note("has fixed", fault)

    def _note(self, what: str, fault: Fault) -> None:
        self.diary.append(f"{now_ms()} {what}: {fault.name} ({', '.join(sorted(fault.victims))})")


def most_resident(bridge: Bridge) -> int:
    """How many KiB of memory it ever had resident; 0 where that cannot be told."""
    try:
        status = Path(f"/proc/{bridge.pid}/status").read_text()
    except OSError:  # it ends just now, or there is no /proc
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)
