"""One run: a seed becomes servers, bridges, users and faults, and a verdict.

First the *safety* phase, in which anything may go wrong; then a *quiet* one, in which all is well and everything has to
be delivered; then a *proof*: some keys that have to be announced on time, exactly once, by their notifications.
"""

import asyncio
import gc
import random
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b

import structlog

from bridge.backoff import JITTER
from bridge.settings import Settings
from tests.simulation.book import NAMES, Book, Shard
from tests.simulation.bridges import Bridge, log_to
from tests.simulation.broker import Broker
from tests.simulation.evidence import evidence
from tests.simulation.faults import Nemesis
from tests.simulation.field_book import FieldBook
from tests.simulation.field_writer import FieldWriter
from tests.simulation.loop import SimLoop, SimProcess
from tests.simulation.network import Network
from tests.simulation.plan import LOSSY, Plan
from tests.simulation.proof import prove, works
from tests.simulation.redis.keyspace import Held
from tests.simulation.redis.server import Server, Session
from tests.simulation.redis.values import Hash, Reply
from tests.simulation.streams import SETTINGS, Streams
from tests.simulation.validators import (
    COMES_TO_ITS_END,
    IS_DELIVERED,
    NO_ERROR_UNNOTICED,
    NO_GAP,
    NO_KEYS_IN_LOGS,
    NO_PROCESS_ENDS,
    judge,
)
from tests.simulation.writer import SECRET, Writer

EPOCH_US = 1_790_000_000_000_000
"""Redis's clock when the world begins."""
REDIS = ("redis", 6379)
QUIET_SECONDS = 90.0
"""Within which all has to be delivered."""
NOT_ALL_NOTIFIED = {"mute", "missed", "flags_changed"}
"""Endings of epochs."""
EVENT = re.compile(r"\w+ (lease\.acquired|standby\.promoted|epoch\.ended) (.*)")
"""Lines of the log that the book has to know of."""
A_KEY = re.compile(r"user:(?!h?\*)")
"""In a line of a log. The bridge says by which patterns it works."""
VALUED = {"exact": b'"value_exact":true', "not exact": b'"value_exact":false', "missing": b'"value_missing"'}
"""What messages say of values."""
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
        super().__init__(world.server, lambda said: world.tell("redis", said), world.plan.shards)
        self._world = world
        self._nested = False
        if world.plan.fielding is not None:
            self.fields = FieldBook(world.server, self.shard, lambda said: world.tell("redis", said))

    def before(self, script: str, session: Session, words: list[bytes]) -> bool:
        """See `Watcher`."""
        return self._world.nemesis.traps.before(script, session, words)

    def done(
        self, script: str | None, session: Session | None, reply: Reply = None, words: Sequence[bytes] = ()
    ) -> None:
        """See `Watcher`."""
        super().done(script, session, reply, words)
        if script is not None and session is not None:
            self._world.nemesis.traps.after(script, session, reply, words)
            self._world.writer.provoked(self.gone)
            if self._world.plan.rewriting is not None:
                self._world.writer.captured(script, self._world.plan.rewriting)
            if self._world.field_writer is not None:
                self._world.field_writer.provoked(script)


class World:
    """See the module."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.log: list[str] = []
        self.violations: dict[str, list[str]] = {}
        self._fences: dict[tuple[str, int], int] = {}
        """Which each process has last got, by its name and the shard."""
        rng = random.Random(plan.seed)
        self.loop = SimLoop(rng.randrange(1 << 60), disorder=plan.disorder, step=plan.step)
        self.network = Network(self.loop, random.Random(rng.randrange(1 << 60)), plan.network)
        self.loop.net = self.network
        self.server = Server(
            self._machine_us,
            random.Random(rng.randrange(1 << 60)),
            kind=plan.kind,
            run_id=f"{plan.seed:040x}",
            flags=plan.flags,
            confined=plan.confined,
        )
        self.book = Watch(self)
        self.server.watcher = self.book
        self.snapshots: list[tuple[int, list[Held]]] = []
        """What Redis held, and when."""
        self.gaps_opened = 0
        self._restarts = 0
        self._healed_ms = 0
        """Since when all is well, on Redis's clock."""
        self.network.listen(REDIS, self.server)
        self.broker = Broker(
            plan.broker, self.network, random.Random(rng.randrange(1 << 60)), lambda said: self.tell("broker", said)
        )
        self.broker.faults = plan.publishing
        settings = {"redis_url": "redis://redis:6379/0", "http_port": 0, "shards": plan.shards, **plan.settings}
        if plan.broker == "redis":
            settings |= SETTINGS
        self.bridges = [
            Bridge("abc"[number], Settings.model_validate(settings), plan.limits, self.network, self.broker, self.tell)
            for number in range(plan.bridges)
        ]
        self.writer = Writer(self.server, self.book, random.Random(rng.randrange(1 << 60)), plan.habits, plan.seed)
        self.field_writer = FieldWriter(self.server, plan.fielding, plan.seed) if plan.fielding else None
        self.nemesis = Nemesis(self, random.Random(rng.randrange(1 << 60)))
        if plan.broker == "redis":
            streams = Server(self._machine_us, random.Random(rng.randrange(1 << 60)), run_id=f"{plan.seed:039x}s")
            Streams(streams, self.broker, self.nemesis)
        self._fate = SimProcess("fate", self.loop)

    def _machine_us(self) -> int:
        return EPOCH_US + int(self.loop.time() * 1e6)

    def tell(self, who: str, said: str) -> None:
        """A line of the log."""
        self.log.append(f"{self.loop.time() - 1000:.6f} {who} {said}")
        event = EVENT.match(said)
        if event is None:
            return
        name, words = event[1], dict(word.split("=", 1) for word in event[2].split() if "=" in word)
        shard = int(words.get("shard", 0))
        if name == "lease.acquired":
            self._fences[who, shard] = int(words["fence"])
        elif name == "standby.promoted" and words["hot"] == "False":
            self.book.shards[shard].hints.cold(self._fences[who, shard])
        elif name == "gap.opened":
            self.gaps_opened += 1
        elif name == "epoch.ended" and words["ending"] in NOT_ALL_NOTIFIED:
            self.book.noticed.add((shard, self._fences[who, shard]))
            if words["ending"] == "missed" and not (self.nemesis.mutes or self.nemesis.excused):
                self.violate(NO_GAP, f"{said}, though all was notified")

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
        if self.book.fields is not None:
            counts |= {"fields": len(self.book.fields.claims), "ambiguous": self.book.fields.counted}
        if self.plan.rewriting is not None:
            bodies = [message.body for message in self.broker.stored]
            counts |= {name: sum(text in body for body in bodies) for name, text in VALUED.items()}
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
        writers = [writer]
        if self.plan.rewriting is not None:
            writers.append(self._fate.run(self.writer.rewrite(self.plan.rewriting)))
        if self.field_writer is not None:
            writers.append(self._fate.run(self.field_writer.work()))
        await self.nemesis.work(self.plan.seconds)
        for writer in writers:
            writer.cancel()
        self.writer.rest()
        self.tell("fate", "quiet")
        self.nemesis.heal()
        self._healed_ms = self.server.keyspace.now_ms
        self.writer.settle()
        if self.field_writer is not None:
            self.field_writer.rest()
        await self._quiet()
        if self.field_writer is not None and not self.violations:
            self.field_writer.settle()
            await self._quiet(fields=True)
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
        self.loop.call_later(seconds, session.server.late, session, words, context=self.network.context)

    async def _quiet(self, *, fields: bool = False) -> None:
        """`fields`: nothing is to be left of fields with deadlines either."""
        until = self.loop.time() + QUIET_SECONDS
        while (waiting := self._waiting(fields=fields)) and self.loop.time() < until:
            await asyncio.sleep(0.2)
            for bridge in self.bridges:
                bridge.start()
        if waiting:
            self.violate(IS_DELIVERED, waiting)

    def _waiting(self, *, fields: bool) -> str:
        """What has not come to its end."""
        if not all(
            any(bridge.ready and works(self, bridge, shard.names) for bridge in self.bridges)
            for shard in self.book.shards
        ):
            return f"no bridge is ready: {[bridge.reasons for bridge in self.bridges]}"
        now = self.server.keyspace.now_ms
        if due := {key: score for key, score in self.book.ledger.items() if score < now - 20}:
            return f"due in the ledger at {now}: {due!r}"
        if any(key.startswith(b"user:") for key in self.server.keyspace.databases[0].deadlines):
            return "keys are about to expire"
        if members := self._strangers():
            return f"members of the ledger that are no more: {members}"
        if said := self._waiting_of_fields(left=not fields):
            return said
        return next(filter(None, map(self._waiting_of, self.book.shards)), "")

    def _waiting_of_fields(self, *, left: bool) -> str:
        """`left`: some may be left."""
        book, fielding = self.book.fields, self.plan.fielding
        if book is None or fielding is None:
            return ""
        if overdue := book.overdue():
            return f"due in the field ledger at {self.server.keyspace.now_ms}: {overdue!r}"
        if unrecorded := book.unrecorded(fielding.most):
            return f"not in the field ledger: {unrecorded}"
        return "" if left or not book.timed() else f"fields are about to expire: {book.timed()}"

    def _waiting_of(self, shard: Shard) -> str:
        if (handled := shard.handled_ms) < self._healed_ms:  # that a mark was lost before is not noticed yet
            return f"all is handled up to {handled} only, of shard {shard.names.shard}"
        depth = self.server.user("XLEN", shard.names.outbox)
        return f"{depth!r} entries in an outbox" if depth else ""

    def _strangers(self) -> list[bytes]:
        """Bridges that have died, and have a share in the shards yet: no bridge has it as long as they count."""
        members = self.server.keyspace.databases[0].values.get(NAMES.members)
        if not isinstance(members, Hash) or len(self.book.shards) == 1:
            return []
        running = {bridge.process.name.encode() for bridge in self.bridges if bridge.running and bridge.process}
        return [name for name, ends in members.items() if name not in running and int(ends) >= self.server.clock_ms]

    def _judge(self) -> None:
        found = evidence(self.book, self.broker.stored, self.broker.kind, self.nemesis.excused)
        found.audited = not self.plan.confined
        self.violations |= judge(found)
        for bridge in self.bridges:
            for failure in bridge.failures:
                self.violate(NO_PROCESS_ENDS, repr(failure))
        for line in self.log:
            if (A_KEY.search(line) or SECRET.decode() in line) and re.match(r"[\d.]+ [abc]\d", line):
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
        sys.unraisablehook = hook
