"""What the epochs of one ledger share. It stays, while servers, leases and subscriptions come and go."""

from dataclasses import dataclass, field

from bridge.broker_state import BrokerState
from bridge.clock import Clock
from bridge.limits import Limits
from bridge.redis.ledger.outbox import Outbox
from bridge.redis.protocol.budget import Budget
from bridge.redis.protocol.migrated_keys import RecentClaims
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.schedule import RedisClock
from bridge.redis.protocol.watermarks import Watermarks
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.topology import Topology
from bridge.settings import Settings
from bridge.telemetry.shard import ShardTelemetry


@dataclass(frozen=True, slots=True)
class Runtime:
    """What every part of one bridge is given."""

    settings: Settings
    instance: str
    """The name of this bridge, unique among all bridges."""
    clock: Clock
    limits: Limits
    broker: BrokerState = field(default_factory=BrokerState)

    def endpoint(self) -> Endpoint:
        """The server that `BRIDGE_REDIS_URL` names: see `Endpoint.of`."""
        return Endpoint.of(self.settings, self.limits.wire, self.clock)


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What the ledgers of a cluster share, from epoch to epoch."""

    topology: Topology
    claims: RecentClaims
    watermarks: Watermarks


@dataclass(frozen=True, slots=True)
class Shard:
    """One ledger, as this bridge works on it."""

    runtime: Runtime
    names: Names
    others: tuple[Names, ...]
    """The other shards on the same server."""
    outbox: Outbox
    redis_clock: RedisClock
    telemetry: ShardTelemetry
    budget: Budget
    """How much one script may take."""
    cluster: ClusterState | None = None
    """None where all shards are on one server."""

    @property
    def number(self) -> int:
        """Its number."""
        return self.names.shard
