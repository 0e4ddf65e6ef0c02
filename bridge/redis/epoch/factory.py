"""How an epoch is put together: first its ears, under the lease, then, when they are open, all else."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from redis.asyncio import Redis

from bridge.clock import Clock
from bridge.redis.epoch.epoch import Epoch
from bridge.redis.epoch.migration import Moves
from bridge.redis.epoch.scan import Scan
from bridge.redis.ledger.outbox import Outbox
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.audit import Audit, Reading
from bridge.redis.protocol.calls import Lease
from bridge.redis.protocol.canary import Canary
from bridge.redis.protocol.gap import Gap
from bridge.redis.protocol.hints import Hints
from bridge.redis.protocol.migrated_keys import Told
from bridge.redis.protocol.notifications import channels, elsewhere
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.patterns import matcher, scan_match
from bridge.redis.protocol.schedule import Schedule
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.server import databases
from bridge.redis.wire.subscription import Subscription, subscribe
from bridge.redis.wire.topology import Topology
from bridge.settings import Settings
from bridge.telemetry.shard import ShardTelemetry


@dataclass(frozen=True, slots=True)
class Ears:
    """What listens in one epoch."""

    subscription: Subscription
    hints: Hints
    canary: Canary
    told: Told | None
    """In a cluster."""
    wake: asyncio.Event
    complete: bool
    """Whether it hears of the expirations of all databases, as the audit needs."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """What all epochs of one source have in common."""

    settings: Settings
    names: Names
    others: tuple[Names, ...]
    """The other shards on the same server."""
    topology: Topology | None
    """Of a cluster."""
    outbox: Outbox
    schedule: Schedule
    clock: Clock
    telemetry: ShardTelemetry
    healthy: Callable[[int], None]
    """Called when the whole way has worked, with when it did, on Redis's clock."""

    def _matches(self) -> Callable[[bytes], object] | None:
        return matcher(self.settings.keys, self.names.shard, self.settings.shards)

    async def listen(self, client: Redis, endpoint: Endpoint, heard: int) -> Ears:
        """Subscribe; `heard` notifications were handled by former epochs. Raises NotConnected or Refused."""
        count = await databases(client, endpoint)
        here, others = channels(endpoint.db), elsewhere(endpoint.db, count or 0)
        canary = Canary(self.names.canary, self.clock, frozenset(other.canary for other in self.others))
        topology = self.topology
        told = None if topology is None else Told(partial(topology.away, self.names.shard), topology.claimed)
        hints = Hints(self.names, here | others, self._matches(), canary, heard, told)
        wake = asyncio.Event()
        subscription = await subscribe(endpoint, list(here), hints.stream, wake.set, elsewhere=list(others))
        return Ears(subscription, hints, canary, told, wake, count is not None and subscription.complete)

    def epoch(self, ears: Ears, ledger: Ledger, endpoint: Endpoint, lease: Lease, gap: Gap) -> Epoch:
        """With the gap open, all else."""
        scan = self._scan(ears, ledger)
        return Epoch(
            lease.fence,
            gap,
            node=str(endpoint),
            ledger=ledger,
            names=self.names,
            subscription=ears.subscription,
            hints=ears.hints,
            canary=ears.canary,
            audit=Audit(Reading.parse(lease.audit)) if ears.complete else None,
            scan=scan,
            schedule=self.schedule,
            outbox=self.outbox,
            wake=ears.wake,
            clock=self.clock,
            telemetry=self.telemetry,
            healthy=self.healthy,
            moves=self._moves(ears, ledger, gap, scan),
        )

    def _scan(self, ears: Ears, ledger: Ledger) -> Scan:
        match, exact = scan_match(self.settings.keys, self.settings.shards)
        return Scan(
            ledger,
            ears.hints,
            match=match,
            matches=None if exact else self._matches(),
            own_prefix=self.names.own_prefix,
            interval=self.settings.scan_interval,
            wake=ears.wake,
            clock=self.clock,
            telemetry=self.telemetry,
        )

    def _moves(self, ears: Ears, ledger: Ledger, gap: Gap, scan: Scan) -> Moves | None:
        if self.topology is None or ears.told is None:
            return None
        ears.told.begin(gap)
        return Moves(
            self.topology,
            ledger,
            ears.hints,
            ears.told,
            number=self.names.shard,
            matches=self._matches(),
            gap=gap,
            scan=scan,
            interval=self.settings.scan_interval,
            redis_ms=self.schedule.redis_ms,
            wake=ears.wake,
            clock=self.clock,
            telemetry=self.telemetry,
        )
