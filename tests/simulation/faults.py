"""What goes wrong: strikes at moments that the seed draws, and traps that wait for the worst one.

Of each strike it is known whether Redis itself loses something by it; then nothing is promised of that moment.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tests.simulation.book import NAMES
from tests.simulation.network import Link
from tests.simulation.redis.server import Session

if TYPE_CHECKING:
    from tests.simulation.world import World

MOST_MUTES = 2
"""In one run: with the third, the bridge does not believe the audit any longer, which is as documented."""
SOON = 0.15
"""Seconds until a strike that follows at once, on average."""
EXCUSED_MS = 20_000
"""How long what Redis has lost may show."""
SCRIPTS = ("apply.lua", "apply.lua", "apply.lua", "touch.lua", "touch.lua", "acquire.lua", "settle.lua", "release.lua")


class Nemesis:
    """Strikes the world, by the plan of its seed."""

    def __init__(self, world: "World", rng: random.Random) -> None:
        self.excused: list[tuple[int, int]] = []
        """Spans on Redis's clock of which nothing is promised."""
        self.struck: list[int] = []
        """The numbers of the strikes that were made."""
        self._world = world
        self._rng = rng
        self._mutes = 0
        self._healing: dict[str, Callable[[], object]] = {}
        """What undoes the strikes that are under way, by their names."""
        self._traps: list[tuple[str, str]] = []
        """For which script, and what happens to it."""

    async def work(self, seconds: float) -> None:
        """For so long. Each strike has choices of its own: without one of them, the others are as they were."""
        loop, plan = self._world.loop, self._world.plan
        begun = loop.time()
        for number, (moment, name, choices) in enumerate(self._schedule(seconds)):
            await asyncio.sleep(max(begun + moment - loop.time(), 0))
            if number not in plan.without:
                self.struck.append(number)
                self._rng = random.Random(choices)
                getattr(self, f"_{name}")()
        await asyncio.sleep(max(begun + seconds - loop.time(), 0))

    def _schedule(self, seconds: float) -> list[tuple[float, str, int]]:
        rng, rates = self._rng, self._world.plan.strikes
        names = [name for name, rate in rates.items() if rate > 0]
        weights = [rates[name] for name in names]
        found: list[tuple[float, str, int]] = []
        moment = rng.expovariate(sum(weights)) if names else seconds
        while moment < seconds:
            found.append((moment, rng.choices(names, weights)[0], rng.randrange(1 << 60)))
            soon = rng.random() < self._world.plan.flurry
            moment += rng.expovariate(1 / SOON if soon else sum(weights))
        return found

    def heal(self) -> None:
        """All is well from now on."""
        self._traps.clear()
        healing, self._healing = self._healing, {}  # what is undone now is not undone again later
        for undo in healing.values():
            undo()
        world = self._world
        world.broker.faults = type(world.broker.faults)()
        world.network.calm()
        for bridge in world.bridges:
            bridge.start()

    # Of the network.

    def _cut(self) -> None:
        links = self._world.network.links
        if links:
            link = self._rng.choice(links)
            self._tell(f"cuts a connection of {link.process and link.process.name}")
            link.sever()

    def _deafen(self) -> None:
        links = [link for link in self._world.network.links if isinstance(link.peer, Session) and link.peer.channels]
        if links:
            link = self._rng.choice(links)
            self._tell(f"cuts a subscription of {link.process and link.process.name}")
            link.sever()

    def _stall(self) -> None:
        links = self._world.network.links
        if links:
            link, seconds = self._rng.choice(links), self._rng.uniform(0.05, self._rng.choice([0.5, 8]))
            self._tell(f"stalls a connection of {link.process and link.process.name} for {seconds:.3f}")
            for pipe in self._rng.choice([(link.up,), (link.down,), (link.up, link.down)]):
                pipe.stall(seconds)

    # Of the bridges.

    def _kill(self) -> None:
        bridge = self._rng.choice(self._world.bridges)
        bridge.kill()
        self._later(f"start {bridge.name}", self._rng.choice([0.01, 1, 6]), bridge.start)

    def _stop(self) -> None:
        bridge = self._rng.choice(self._world.bridges)
        self._tell(f"stops {bridge.name}")
        bridge.stop()
        self._later(f"start {bridge.name}", self._rng.uniform(0.01, 12), bridge.start)

    def _pause(self) -> None:
        bridge = self._rng.choice(self._world.bridges)
        if bridge.process is not None and bridge.process.alive and not bridge.process.frozen:
            seconds = self._rng.uniform(0.01, self._rng.choice([0.3, 9]))
            self._tell(f"freezes {bridge.process.name} for {seconds:.3f}")
            bridge.process.freeze()
            self._later(f"thaw {bridge.process.name}", seconds, bridge.process.thaw)

    # Of the broker.

    def _broker_away(self) -> None:
        broker, seconds = self._world.broker, self._rng.uniform(0.01, self._rng.choice([0.5, 10]))
        self._tell(f"the broker is away for {seconds:.3f}")
        broker.lose(up=False)
        self._later("broker_away", seconds, lambda: setattr(broker, "up", True))

    # Of the server.

    def _freeze(self) -> None:
        self._switch("frozen", self._world.server.thaw)

    def _busy(self) -> None:
        self._switch("busy")

    def _no_memory(self) -> None:
        self._switch("out_of_memory")

    def _switch(self, name: str, undo: Callable[[], object] | None = None) -> None:
        server, seconds = self._world.server, self._rng.uniform(0.01, self._rng.choice([0.3, 7]))
        if not getattr(server, name):
            self._tell(f"redis is {name} for {seconds:.3f}")
            setattr(server, name, True)
            self._later(name, seconds, undo or (lambda: setattr(server, name, False)))

    def _pause_writes(self) -> None:
        server = self._world.server
        if not server.writes_paused:
            seconds = self._rng.uniform(0.005, self._rng.choice([0.1, 3]))
            self._tell(f"CLIENT PAUSE WRITE for {seconds:.3f}")
            server.pause_writes(paused=True)
            self._later("pause_writes", seconds, lambda: server.pause_writes(paused=False))

    def _mute(self) -> None:
        keyspace, self._mutes = self._world.server.keyspace, self._mutes + 1
        if self._mutes > MOST_MUTES:
            return
        former, seconds = keyspace.flags, self._rng.uniform(0.001, self._rng.choice([0.05, 8]))
        self._tell(f"takes the flags {former} away for {seconds:.3f}")
        keyspace.flags = ""
        self._later("mute", seconds, lambda: setattr(keyspace, "flags", keyspace.flags or former or "Egxe"))

    def _flush_scripts(self) -> None:
        self._tell("SCRIPT FLUSH")
        self._world.server.scripts.flush()

    def _evict(self) -> None:
        server = self._world.server
        if not (server.frozen or server.busy):
            key = self._victim()
            if key is not None:
                server.keyspace.evict(server.keyspace.databases[0], key)
                server.watcher.done(None, None)

    def _victim(self) -> bytes | None:
        keyspace = self._world.server.keyspace
        keys = [key for key in self._world.writer.keys if key in keyspace.databases[0].values]
        return self._rng.choice(keys) if keys else None

    def _clock_forward(self) -> None:
        seconds = self._rng.uniform(0.001, self._rng.choice([0.05, 6]))
        self._tell(f"sets Redis's clock forward by {seconds:.3f}")
        self._world.server.offset_us += int(seconds * 1e6)

    def _restart(self) -> None:
        self._tell("redis is killed, and starts with its AOF")
        self._world.restart(None)

    # With loss.

    def _delete_own(self) -> None:
        key = self._rng.choice([NAMES.deadlines, NAMES.lease, NAMES.outbox])
        self._tell(f"deletes {key.decode()}")
        self._excuse(0)
        self._world.server.user("DEL", key)

    def _flush(self) -> None:
        self._tell("FLUSHALL")
        self._excuse(0)
        self._world.server.user("FLUSHALL")

    def _restart_empty(self) -> None:
        self._tell("redis is killed, and starts empty")
        self._excuse(0)
        self._world.restart([])

    def _restart_old(self) -> None:
        if self._world.snapshots:
            at_ms, held = self._rng.choice(self._world.snapshots)
            self._tell(f"redis is killed, and starts with its data of {at_ms}")
            self._excuse(self._world.server.clock_ms - at_ms)
            self._world.restart(held)

    def _clock_back(self) -> None:
        seconds = self._rng.uniform(0.001, self._rng.choice([0.05, 4]))
        self._tell(f"sets Redis's clock back by {seconds:.3f}")
        self._excuse(int(seconds * 1000) + 1)
        self._world.server.offset_us -= int(seconds * 1e6)

    def _excuse(self, back_ms: int) -> None:
        now = self._world.server.clock_ms
        self.excused.append((now - back_ms - EXCUSED_MS, now + EXCUSED_MS))

    # Traps.

    def _trap(self) -> None:
        self._traps.append((self._rng.choice(SCRIPTS), self._rng.choice(TRAPS)))

    def before(self, script: str, session: Session, words: list[bytes]) -> bool:
        """A script is about to run. False: it does not, or not now."""
        act = self._sprung(script, ("request lost", "late", "killed before"))
        if act is None:
            return True
        link = next((link for link in self._world.network.links if link.peer is session), None)
        self._tell(f"{act}: {script} of {link and link.process and link.process.name}")
        if link is not None:
            link.up.closed = link.down.closed = True
            if act == "killed before":
                self._kill_owner(link)
            link.sever(server=False)
        if act == "late":
            self._world.rerun(session, words, self._rng.choice([0.05, 0.5, 3, 8]) * self._rng.random())
        return False

    def after(self, script: str, session: Session) -> None:
        """A script has run, and its reply is not sent yet."""
        act = self._sprung(script, ("reply lost", "reply lost", "all cut", "killed after", "frozen"))
        if act is None:
            return
        link = next((link for link in self._world.network.links if link.peer is session), None)
        if link is None:
            return
        owner = link.process
        self._tell(f"{act}: {script} of {owner and owner.name}")
        link.down.closed = act != "frozen"
        if act == "killed after":
            self._kill_owner(link)
        elif act == "all cut":
            for other in [other for other in self._world.network.links if other.process is owner]:
                other.sever()
        elif act == "frozen" and owner is not None and not owner.frozen:
            owner.freeze()
            self._later(f"thaw {owner.name}", self._rng.uniform(0.01, 9), owner.thaw)
        else:
            link.sever()

    def _sprung(self, script: str, acts: Sequence[str]) -> str | None:
        for trap in self._traps:
            if trap[0] == script and trap[1] in acts:
                self._traps.remove(trap)
                return trap[1]
        return None

    def _kill_owner(self, link: Link) -> None:
        for bridge in self._world.bridges:
            if bridge.process is not None and bridge.process is link.process:
                bridge.kill()
                self._later(f"start {bridge.name}", self._rng.choice([0.01, 1, 6]), bridge.start)

    # In general.

    def _later(self, name: str, seconds: float, undo: Callable[[], object]) -> None:
        """Undo it, once."""

        def once() -> None:
            if self._healing.pop(name, None) is not None:
                undo()

        self._healing[name] = undo
        self._world.loop.call_later(seconds, once, context=self._world.network.context)

    def _tell(self, said: str) -> None:
        self._world.tell("fate", said)


TRAPS = ("request lost", "late", "killed before", "reply lost", "all cut", "killed after", "frozen")
