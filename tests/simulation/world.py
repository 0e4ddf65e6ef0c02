"""One run: a seed becomes servers, bridges, users and faults, and a verdict.

First the *safety* phase, in which anything may go wrong; then a *quiet* one, in which all is well and everything has to
be delivered; then a *proof*: some keys that have to be announced on time, exactly once, by their notifications.
"""

import asyncio
import gc
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b

import structlog

from bridge.backoff import JITTER
from bridge.settings import Settings
from tests.simulation.book import NAMES, Book
from tests.simulation.bridges import Bridge, log_to
from tests.simulation.broker import Broker
from tests.simulation.faults import Nemesis
from tests.simulation.loop import SimLoop, SimProcess
from tests.simulation.network import Network
from tests.simulation.plan import LOSSY, Plan
from tests.simulation.proof import prove, works
from tests.simulation.redis.keyspace import Held
from tests.simulation.redis.server import Server, Session
from tests.simulation.redis.values import Reply
from tests.simulation.validators import (
    COMES_TO_ITS_END,
    IS_DELIVERED,
    NO_ERROR_UNNOTICED,
    NO_KEYS_IN_LOGS,
    NO_PROCESS_ENDS,
    evidence,
    judge,
)
from tests.simulation.writer import Writer

EPOCH_US = 1_790_000_000_000_000
"""Redis's clock when the world begins."""
REDIS = ("redis", 6379)
QUIET_SECONDS = 90.0
"""Within which all has to be delivered."""
CYCLE_SECONDS = 0.1
"""Between two turns of Redis's active expiry."""


@dataclass
class Outcome:
    """What came of a run."""

    plan: Plan
    violations: dict[str, list[str]]
    digest: str
    virtual_seconds: float
    steps: int
    counts: dict[str, int]
    struck: Sequence[int]
    """Which strikes were made, by their numbers."""
    log: list[str] = field(default_factory=list)


class Watch(Book):
    """The book, and who else wants to know what happens on the server."""

    def __init__(self, world: "World") -> None:
        super().__init__(world.server, lambda said: world.tell("redis", said))
        self._world = world
        self._nested = False

    def before(self, script: str, session: Session, words: list[bytes]) -> bool:
        """See `Watcher`."""
        return self._world.nemesis.before(script, session, words)

    def done(self, script: str | None, session: Session | None, reply: Reply = None) -> None:
        """See `Watcher`."""
        super().done(script, session, reply)
        if script is not None and session is not None:
            self._world.nemesis.after(script, session)
            self._world.writer.provoked()


class World:
    """See the module."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.log: list[str] = []
        self.violations: dict[str, list[str]] = {}
        self._fences: dict[str, int] = {}
        """Which each process has last got."""
        rng = random.Random(plan.seed)
        self.loop = SimLoop(rng.randrange(1 << 60), disorder=plan.disorder, step=plan.step)
        self.network = Network(self.loop, random.Random(rng.randrange(1 << 60)), plan.network)
        self.loop.net = self.network
        self.server = Server(
            lambda: EPOCH_US + int(self.loop.time() * 1e6),
            random.Random(rng.randrange(1 << 60)),
            kind=plan.kind,
            run_id=f"{plan.seed:040x}",
            flags=plan.flags,
        )
        self.book = Watch(self)
        self.server.watcher = self.book
        self.snapshots: list[tuple[int, list[Held]]] = []
        """What Redis held, and when."""
        self._restarts = 0
        self.network.listen(REDIS, self.server)
        self.broker = Broker(
            plan.broker, self.network, random.Random(rng.randrange(1 << 60)), lambda said: self.tell("broker", said)
        )
        self.broker.faults = plan.publishing
        settings = Settings.model_validate({"redis_url": "redis://redis:6379/0", "http_port": 0, **plan.settings})
        self.bridges = [
            Bridge("abc"[number], settings, plan.limits, self.network, self.broker, self.tell)
            for number in range(plan.bridges)
        ]
        self.writer = Writer(self.server, self.book, random.Random(rng.randrange(1 << 60)), plan.habits)
        self.nemesis = Nemesis(self, random.Random(rng.randrange(1 << 60)))
        self._fate = SimProcess("fate", self.loop)

    def tell(self, who: str, said: str) -> None:
        """A line of the log."""
        self.log.append(f"{self.loop.time() - 1000:.6f} {who} {said}")
        if said.startswith("info lease.acquired fence="):
            self._fences[who] = int(said.split("=")[1].split(maxsplit=1)[0])
        elif said.startswith("info standby.promoted hot=False"):
            self.book.hints.cold(self._fences[who])

    def violate(self, sentence: str, said: str) -> None:
        """It is contradicted."""
        self.violations.setdefault(sentence, []).append(said)

    def run(self) -> Outcome:
        """All of it."""
        log_to(self.tell)
        JITTER.seed(self.plan.seed)
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._fate.run(self._course()))
            if not self.violations:
                self._judge()
        except Exception as error:  # noqa: BLE001 - a finding
            self.violate(COMES_TO_ITS_END, repr(error))
        finally:
            for bridge in self.bridges:
                bridge.kill()
            asyncio.set_event_loop(None)
        digest = blake2b("\n".join(self.log).encode(), digest_size=16).hexdigest()
        counts = {
            "lives": sum(map(len, self.book.lives.values())),
            "stored": len(self.broker.stored),
            "gaps": sum(message.gap for message in self.broker.stored),
        }
        return Outcome(
            self.plan,
            self.violations,
            digest,
            self.loop.time() - 1000,
            self.loop.steps,
            counts,
            self.nemesis.struck,
            self.log,
        )

    # Phases.

    async def _course(self) -> None:
        for bridge in self.bridges:
            bridge.start()
        cycle = self._fate.run(self._cycle())
        writer = self._fate.run(self.writer.work())
        await self.nemesis.work(self.plan.seconds)
        writer.cancel()
        self.writer.rest()
        self.tell("fate", "quiet")
        self.nemesis.heal()
        self.writer.settle()
        await self._quiet()
        if not self.violations:
            await prove(self)
        cycle.cancel()

    async def _cycle(self) -> None:
        lossy = any(self.plan.strikes.get(name) for name in LOSSY)
        while True:
            await asyncio.sleep(CYCLE_SECONDS)
            self.server.cycle(self.plan.cycle_share)
            if lossy:
                databases = self.server.keyspace.databases
                self.snapshots.append((self.server.clock_ms, [database.snapshot() for database in databases]))
                del self.snapshots[:-20]

    def restart(self, held: list[Held] | None) -> None:
        """Redis is killed, and starts: with its data, or with what it held once."""
        self._restarts += 1
        self.server.restart(f"{self.plan.seed:036x}{self._restarts:04x}")
        if held is not None:
            self.server.keyspace.restore(held)
            self.snapshots.clear()
            self.book.resume()

    def rerun(self, session: Session, words: list[bytes], seconds: float) -> None:
        """Let Redis read that request only after so long."""
        self.loop.call_later(seconds, self.server.late, session, words, context=self.network.context)

    async def _quiet(self) -> None:
        until = self.loop.time() + QUIET_SECONDS
        while (waiting := self._waiting()) and self.loop.time() < until:
            await asyncio.sleep(0.2)
            for bridge in self.bridges:
                bridge.start()
        if waiting:
            self.violate(IS_DELIVERED, waiting)

    def _waiting(self) -> str:
        """What has not come to its end."""
        if not any(bridge.ready and works(self, bridge) for bridge in self.bridges):
            return f"no bridge is ready: {[bridge.reasons for bridge in self.bridges]}"
        now = self.server.keyspace.now_ms
        if due := {key: score for key, score in self.book.ledger.items() if score < now - 20}:
            return f"due in the ledger at {now}: {due!r}"
        if any(key.startswith(b"user:") for key in self.server.keyspace.databases[0].deadlines):
            return "keys are about to expire"
        if depth := self.server.user("XLEN", NAMES.outbox):
            return f"{depth!r} entries in the outbox"
        return ""

    def _judge(self) -> None:
        found = evidence(self.book, self.broker.stored, self.broker.kind, self.nemesis.excused)
        self.violations |= judge(found)
        for bridge in self.bridges:
            for failure in bridge.failures:
                self.violate(NO_PROCESS_ENDS, repr(failure))
        for line in self.log:
            if "user:" in line and re.match(r"[\d.]+ [abc]\d", line):
                self.violate(NO_KEYS_IN_LOGS, line)
        for complaint in self.loop.complaints:
            self.violate(NO_ERROR_UNNOTICED, complaint)


@lru_cache(maxsize=1)
def _settled() -> None:
    """What is there before the first run stays: no collection has to look at it again."""
    gc.collect()
    gc.freeze()


def run(plan: Plan) -> Outcome:
    """One run, and nothing left of it."""
    _settled()
    hook = sys.unraisablehook
    gc.disable()
    world = World(plan)
    try:
        return world.run()
    finally:
        # What killed processes leave behind complains when it is collected: nobody is to hear that.
        sys.unraisablehook = lambda _: None
        structlog.reset_defaults()  # what it was told last knows the world
        del world
        gc.collect()
        sys.unraisablehook = hook
