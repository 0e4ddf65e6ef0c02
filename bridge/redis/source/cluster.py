"""All primaries of a cluster: each has a ledger, and a source of its own for it, as the shards of one server have.

Primaries come and go. In a failover the ledger stays the same, on another server (`primary.py`). When slots move, a
primary may get another ledger (`slots.py`): then its source ends, and another one begins. The contents of the former
ledger follow (`migration.py`).
"""

import asyncio
from contextlib import suppress

from bridge.backoff import Backoff
from bridge.endings import Ending
from bridge.errors import NotConnected, Refused
from bridge.redis.epoch.shard import ClusterState, Runtime
from bridge.redis.ledger.outboxes import Outboxes
from bridge.redis.ledger.roster import Roster
from bridge.redis.ledger.runner import Runner
from bridge.redis.protocol.migrated_keys import RecentClaims
from bridge.redis.protocol.watermarks import Watermarks
from bridge.redis.source.membership import Members
from bridge.redis.source.shard import RedisSource
from bridge.redis.wire.cluster_nodes import Node
from bridge.redis.wire.commands import Commands
from bridge.redis.wire.topology import Topology
from bridge.tasks import end, run_together
from bridge.telemetry.events import Telemetry

SEVERAL = 2
"""The number of shards that telemetry assumes: there may always be more of them later."""


class Cluster:
    """Find expirations on all primaries and claim them into their outboxes, until stopped."""

    def __init__(self, runtime: Runtime, telemetry: Telemetry) -> None:
        self.outbox = Outboxes(runtime.clock, runtime.limits.ledger)
        self._runtime = runtime
        self._clock = runtime.clock
        self._limits = runtime.limits.source
        self._telemetry = telemetry
        self._watermarks = Watermarks()
        self._topology = Topology(runtime.endpoint(), self._watermarks.look)
        self._state = ClusterState(self._topology, RecentClaims(runtime.limits.epoch), self._watermarks)
        self.db = self._topology.endpoint.db
        self._members = Members(runtime, self._roster, 0, clustered=True)
        self._sources: dict[int, RedisSource] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._retiring: dict[int, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()
        self._begun = False
        self._first: tuple[Node, Commands] | None = None
        telemetry.cluster_sought()

    def _roster(self) -> Roster:
        """The roster for signs of life: it is on the primary that has the first ledger's keys."""
        topology = self._topology
        node = topology.owner(topology.names.members)
        if node is None:
            raise NotConnected("no primary of the cluster has the keys of the bridge's first ledger")
        if self._first is None or self._first[0] != node:
            if self._first is not None:
                self._first[1].close()
            self._first = node, Commands(topology.endpoint.at(node.address))
        return Roster(Runner(self._first[1]), topology.names)

    @property
    def waiting(self) -> int:
        """Expirations in the outbox, as last heard."""
        return self.outbox.depth

    def redis_ms(self) -> float:
        """Redis's clock now, in ms, as the last reply said."""
        return max((source.redis_ms() for source in self._sources.values()), default=0.0)

    async def run(self) -> None:
        """Work until `stop`. Raises Refused where Redis never served us: the settings have to be fixed."""
        await self._find()
        if not self._stopping.is_set():
            parts = {"members": self._members.run(), "primaries": self._follow(), "watermarks": self._share()}
            await run_together({"topology": self._topology.watch(), "work": run_together(parts)}, until="work")
        self.outbox.drain()

    def stop(self) -> None:
        """Handle what was received, and let `run` return."""
        self._stopping.set()
        self._members.leave()
        for source in self._sources.values():
            source.stop()

    async def close(self) -> None:
        """Release the leases, so that standbys take over at once, and give the connections back."""
        await self.outbox.close()
        await asyncio.gather(*(source.close() for source in self._sources.values()))
        if self._first is not None:
            self._first[1].close()
        with suppress(OSError):
            await self._topology.close()

    async def _find(self) -> None:
        """Look at the cluster for the first time."""
        backoff = Backoff(self._limits.backoff_first, self._limits.backoff_most)
        while not self._stopping.is_set():
            try:
                await self._topology.refresh()
            except NotConnected as error:
                delay = backoff.next()
                self._telemetry.cluster_unreached(str(error), delay)
                await self._clock.wait(self._stopping, delay)
            else:
                await self._exchange()
                return

    async def _share(self) -> None:
        """Exchange watermarks with the other bridges, until stopped."""
        while not self._stopping.is_set():
            await self._clock.wait(self._stopping, self._limits.exchange)
            await self._exchange()

    async def _exchange(self) -> None:
        with suppress(NotConnected, Refused):  # the shards report what is wrong
            self._watermarks.learn(*await self._roster().exchange(self._watermarks.news()))

    async def _follow(self) -> None:
        """Have a source for each ledger, until stopped and all have ended."""
        stopped = asyncio.create_task(self._stopping.wait(), name="stopping")
        try:
            while not self._stopping.is_set():
                news = self._topology.news
                self._compare()
                changed = asyncio.create_task(news.wait(), name="topology-changed")
                try:
                    waited = {changed, stopped, *self._running.values(), *self._retiring.values()}
                    await self._clock.first(waited, None)
                finally:
                    await end([changed])
                for task in waited - {changed}:
                    if task.done():
                        task.result()
                self._retiring = {number: task for number, task in self._retiring.items() if not task.done()}
            await asyncio.gather(*self._running.values(), *self._retiring.values())
        finally:
            await end([stopped, *self._running.values(), *self._retiring.values()])

    def _compare(self) -> None:
        """Start a source for each new ledger, and stop those of ledgers that no longer belong to a primary."""
        primaries = self._topology.primaries
        if primaries.keys() != self._sources.keys():
            self._telemetry.cluster_located([f"{number}: {node}" for number, node in sorted(primaries.items())])
        self._members.resize(len(primaries))
        for number in primaries.keys() - self._sources.keys() - self._retiring.keys():
            source = RedisSource(
                self._runtime,
                self._telemetry.shard(number, SEVERAL),
                self._members,
                self.outbox.wake,
                number=number,
                cluster=self._state,
                fatal=self._refused,
                cause="slots have moved: the ledger is new here" if self._begun else "start",
            )
            self._sources[number] = source
            self.outbox.add(source.outbox)
            self._running[number] = asyncio.create_task(source.run(), name=f"ledger-{number}")
        self._begun = True
        for number in self._sources.keys() - primaries.keys():
            task = asyncio.create_task(
                self._retire(number, self._sources.pop(number), self._running.pop(number)), name=f"retire-{number}"
            )
            self._retiring[number] = task

    async def _retire(self, number: int, source: RedisSource, running: asyncio.Task[None]) -> None:
        source.outbox.pause()
        source.stop("the ledger no longer belongs to a primary: slots have moved", Ending.SLOTS_MOVED)
        self._members.lost(number)
        try:
            if await self._clock.all([running], self._limits.retire):
                running.result()
        finally:
            await end([running])  # if it still waits for an answer: its data is found with the ledger
            await source.close()
            self.outbox.remove(source.outbox)
            source.telemetry.gone()

    def _refused(self) -> bool:
        """Whether every primary has refused us. A refusal by one of several must not end the work on the others."""
        return all(source.refused for source in self._sources.values())
