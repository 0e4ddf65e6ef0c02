"""What goes wrong: strikes at moments that the seed draws, and traps that wait for the worst one.

Of each strike it is known whether Redis itself loses something by it; then nothing is promised of that moment.
"""

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.redis.server import Session
from tests.simulation.traps import Traps

if TYPE_CHECKING:
    from tests.simulation.world import World

MOST_MUTES = 2
"""In one run: with the third, the bridge does not believe the audit any longer, which is as documented."""
SOON = 0.15
"""Seconds until a strike that follows at once, on average."""
EXCUSED_MS = 20_000
"""How long what Redis has lost may show."""


class Nemesis:
    """Strikes the world, by the plan of its seed."""

    def __init__(self, world: "World", rng: random.Random) -> None:
        self.excused: list[tuple[int, int]] = []
        """Spans on Redis's clock of which nothing is promised."""
        self.struck: list[int] = []
        """The numbers of the strikes that were made."""
        self._world = world
        self._rng = rng
        self.mutes = 0
        """How often notifications were off."""
        self._healing: dict[str, Callable[[], object]] = {}
        """What undoes the strikes that are under way, by their names."""
        self.traps = Traps(world, self)

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
        self.traps.clear()
        healing, self._healing = self._healing, {}  # what is undone now is not undone again later
        for undo in healing.values():
            undo()
        world = self._world
        world.broker.faults = type(world.broker.faults)()
        world.network.calm()
        for bridge in world.bridges:
            bridge.start()

    @property
    def rng(self) -> random.Random:
        """That of the last strike."""
        return self._rng

    def _trap(self) -> None:
        self.traps.lay()

    def _hush(self) -> None:
        if self._may_mute():
            self.traps.lay_hush()

    def _may_mute(self) -> bool:
        """Once more."""
        self.mutes += 1
        return self.mutes <= (1 if self._world.plan.confined else MOST_MUTES)

    # Of the network.

    def _cut(self) -> None:
        links = self._world.network.links
        if links:
            link = self._rng.choice(links)
            self.tell(f"cuts a connection of {link.process and link.process.name}")
            link.sever()

    def _deafen(self) -> None:
        links = [link for link in self._world.network.links if isinstance(link.peer, Session) and link.peer.channels]
        if links:
            link = self._rng.choice(links)
            self.tell(f"cuts a subscription of {link.process and link.process.name}")
            link.sever()

    def _stall(self) -> None:
        links = self._world.network.links
        if links:
            link, seconds = self._rng.choice(links), self._rng.uniform(0.05, self._rng.choice([0.5, 8]))
            self.tell(f"stalls a connection of {link.process and link.process.name} for {seconds:.3f}")
            for pipe in self._rng.choice([(link.up,), (link.down,), (link.up, link.down)]):
                pipe.stall(seconds)

    def _untrack(self) -> None:
        tracked = [link for link in self._world.network.links if isinstance(link.peer, Session) and link.peer.redirect]
        if tracked:
            link = self._rng.choice(tracked)
            self.tell(f"cuts a tracked connection of {link.process and link.process.name}")
            if self._rng.random() < 0.3:
                link.sever(client=self._rng.random() < 0.5)
            elif isinstance(link.peer, Session):
                self._world.server.disconnect([link.peer])
                for _ in range(3):
                    self._world.writer.overwrite()

    # Of the bridges.

    def _kill(self) -> None:
        bridge = self._rng.choice(self._world.bridges)
        bridge.kill()
        self.later(f"start {bridge.name}", self._rng.choice([0.01, 1, 6]), bridge.start)

    def _stop(self) -> None:
        bridge = self._rng.choice(self._world.bridges)
        self.tell(f"stops {bridge.name}")
        bridge.stop()
        self.later(f"start {bridge.name}", self._rng.uniform(0.01, 12), bridge.start)

    def _pause(self) -> None:
        bridge = self._rng.choice(self._world.bridges)
        if bridge.process is not None and bridge.process.alive and not bridge.process.frozen:
            seconds = self._rng.uniform(0.01, self._rng.choice([0.3, 9]))
            self.tell(f"freezes {bridge.process.name} for {seconds:.3f}")
            bridge.process.freeze()
            self.later(f"thaw {bridge.process.name}", seconds, bridge.process.thaw)

    def _relieve(self) -> None:
        self._rng.choice(self._world.bridges).relieve()

    # Of the broker.

    def _broker_away(self) -> None:
        broker, seconds = self._world.broker, self._rng.uniform(0.01, self._rng.choice([0.5, 10]))
        self.tell(f"the broker is away for {seconds:.3f}")
        broker.lose()
        self.later("broker_away", seconds, broker.back)

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
            self.tell(f"redis is {name} for {seconds:.3f}")
            setattr(server, name, True)
            self.later(name, seconds, undo or (lambda: setattr(server, name, False)))

    def _pause_writes(self) -> None:
        server = self._world.server
        if not server.writes_paused:
            seconds = self._rng.uniform(0.005, self._rng.choice([0.1, 3]))
            self.tell(f"CLIENT PAUSE WRITE for {seconds:.3f}")
            server.pause_writes(paused=True)
            self.later("pause_writes", seconds, lambda: server.pause_writes(paused=False))

    def _mute(self) -> None:
        keyspace = self._world.server.keyspace
        if not self._may_mute():
            return
        former, seconds = keyspace.flags, self._rng.uniform(0.001, self._rng.choice([0.05, 1, 8]))
        self.tell(f"takes the flags {former} away for {seconds:.3f}")
        keyspace.flags = ""
        self.later("mute", seconds, lambda: setattr(keyspace, "flags", keyspace.flags or former or "Egxe"))

    def _flush_scripts(self) -> None:
        self.tell("SCRIPT FLUSH")
        self._world.server.scripts.flush()

    def _overflow(self) -> None:
        self._world.server.tracking.overflow()

    def _flush_elsewhere(self) -> None:
        self._world.server.user("FLUSHDB", database=5)

    def _displace(self) -> None:
        self._world.server.user("SET", self._rng.choice(self._world.book.shards).names.values, "another program's")

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
        self.tell(f"sets Redis's clock forward by {seconds:.3f}")
        self._world.server.offset_us += int(seconds * 1e6)

    def _restart(self) -> None:
        self.tell("redis is killed, and starts with its AOF")
        self._world.restart(None)

    # With loss.

    def _delete_own(self) -> None:
        names = self._rng.choice(self._world.book.shards).names
        values = [] if self._world.plan.rewriting is None else [names.values]
        values += [] if self._world.plan.fielding is None else [names.fields]
        key = self._rng.choice([names.deadlines, names.lease, names.outbox, *values])
        self.tell(f"deletes {key.decode()}")
        self._excuse(0)
        self._world.server.user("DEL", key)

    def _flush(self) -> None:
        self.tell("FLUSHALL")
        self._excuse(0)
        self._world.server.user("FLUSHALL")

    def _restart_empty(self) -> None:
        self.tell("redis is killed, and starts empty")
        self._excuse(0)
        self._world.restart([])

    def _restart_old(self) -> None:
        if self._world.snapshots:
            at_ms, held = self._rng.choice(self._world.snapshots)
            self.tell(f"redis is killed, and starts with its data of {at_ms}")
            self._excuse(self._world.server.clock_ms - at_ms)
            self._world.restart(held)

    def _clock_back(self) -> None:
        seconds = self._rng.uniform(0.001, self._rng.choice([0.05, 4]))
        self.tell(f"sets Redis's clock back by {seconds:.3f}")
        self._excuse(int(seconds * 1000) + 1)
        self._world.server.offset_us -= int(seconds * 1e6)

    def _excuse(self, back_ms: int) -> None:
        now = self._world.server.clock_ms
        self.excused.append((now - back_ms - EXCUSED_MS, now + EXCUSED_MS))

    # In general.

    def later(self, name: str, seconds: float, undo: Callable[[], object]) -> None:
        """Undo it, once."""

        def once() -> None:
            if self._healing.pop(name, None) is not None:
                undo()

        self._healing[name] = undo
        self._world.loop.call_later(seconds, once, context=self._world.network.context)

    def tell(self, said: str) -> None:
        self._world.tell("fate", said)
