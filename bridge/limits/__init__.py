"""All times and bounds of the service, and the relations between them that keep it correct.

One `Limits` is made when the service starts, and passed to each part that needs some of it. A relation that does not
hold is a ValueError at once. Tests pass shorter times (`Limits().scaled(0.2)`) or smaller bounds
(`dataclasses.replace`); nothing is patched. Facts that are not ours to choose (a protocol's version or maximum) stay
where they are used.

Spans are in seconds unless the name ends in `_ms`; sizes are in bytes where the name says so, else they count.
"""

from dataclasses import dataclass, field

from bridge.limits.broker import DeliveryLimits, JetStreamLimits, KafkaLimits
from bridge.limits.redis import BacklogLimits, EpochLimits, FieldLimits, LedgerLimits, SourceLimits, WireLimits
from bridge.limits.scaled import Scaled, seconds

__all__ = [
    "BacklogLimits",
    "DeliveryLimits",
    "EpochLimits",
    "FieldLimits",
    "JetStreamLimits",
    "KafkaLimits",
    "LedgerLimits",
    "Limits",
    "SourceLimits",
    "WireLimits",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Scaled):
    """All of them. Raises ValueError where a relation that correctness needs does not hold."""

    wire: WireLimits = field(default_factory=WireLimits)
    ledger: LedgerLimits = field(default_factory=LedgerLimits)
    epoch: EpochLimits = field(default_factory=EpochLimits)
    fields: FieldLimits = field(default_factory=FieldLimits)
    backlog: BacklogLimits = field(default_factory=BacklogLimits)
    source: SourceLimits = field(default_factory=SourceLimits)
    delivery: DeliveryLimits = field(default_factory=DeliveryLimits)
    jetstream: JetStreamLimits = field(default_factory=JetStreamLimits)
    kafka: KafkaLimits = field(default_factory=KafkaLimits)
    close: float = seconds(5.0)
    """For the session with the broker, and for the lease, each, after the drain."""

    def __post_init__(self) -> None:
        wire, epoch, source, delivery = self.wire, self.epoch, self.source, self.delivery
        lease = self.ledger.lease_ms / 1000
        life = source.life_ms / 1000
        relations = {
            "wire.handshake < wire.command (else Redis is blamed for what the handshake took)": wire.handshake
            < wire.command,
            "wire.login < wire.command (else Redis is blamed for what the provider took)": wire.login < wire.command,
            "wire.login < wire.subscribe (likewise)": wire.login < wire.subscribe,
            "wire.ping < wire.silence (else a healthy server is taken for dead)": wire.ping < wire.silence,
            "wire.topology_doubt <= wire.topology": wire.topology_doubt <= wire.topology,
            "epoch.heartbeat * 3 <= ledger.lease_ms (a lease must survive two lost heartbeats)": epoch.heartbeat * 3
            <= lease,
            "epoch.heartbeat < epoch.mark (else an epoch is mute before it asked)": epoch.heartbeat < epoch.mark,
            "epoch.canary_ttl_ms < epoch.canary": epoch.canary_ttl_ms / 1000 < epoch.canary,
            "epoch.batch_recovery <= epoch.batch_patience": epoch.batch_recovery <= epoch.batch_patience,
            "epoch.least_batch_bytes <= epoch.batch_bytes": epoch.least_batch_bytes <= epoch.batch_bytes,
            "epoch.found_keys <= epoch.batch_keys": epoch.found_keys <= epoch.batch_keys,
            "epoch.part_keys <= epoch.found_keys": epoch.part_keys <= epoch.found_keys,
            "epoch.gather < epoch.heartbeat": epoch.gather < epoch.heartbeat,
            "backlog.fill * 2 < ledger.lease_ms (the lease is not extended meanwhile)": self.backlog.fill * 2 < lease,
            "backlog.events * 2 <= wire.backlog_hints (else the inbox is full at once)": self.backlog.events * 2
            <= wire.backlog_hints,
            "source.life_ms < ledger.lease_ms (a dead bridge stops counting before its leases end)": life < lease,
            "source.sign_of_life < source.life_ms": source.sign_of_life < life,
            "source.leave_to_share + source.sign_of_life < source.yield_to_heir (who could go on is first)": (
                source.leave_to_share + source.sign_of_life < source.yield_to_heir
            ),
            "source.backoff_most < source.forsaken (a bridge that tries again is first)": (
                source.backoff_most < source.forsaken
            ),
            "source.standby_poll * 2 < source.yield_to_listener": source.standby_poll * 2 < source.yield_to_listener,
            "source.standby_poll < ledger.lease_ms": source.standby_poll < lease,
            "source.release < close (else the lease is never given back)": source.release < self.close,
            "delivery.batch <= delivery.in_flight": delivery.batch <= delivery.in_flight,
            "delivery.batch_bytes <= delivery.in_flight_bytes": delivery.batch_bytes <= delivery.in_flight_bytes,
            "jetstream.tick < jetstream.ack": self.jetstream.tick < self.jetstream.ack,
            "kafka.token < kafka.greeting (else the broker is blamed for the token)": self.kafka.token
            < self.kafka.greeting,
            "kafka.request < kafka.stall (else a slow answer ends the session)": self.kafka.request < self.kafka.stall,
        }
        broken = [relation for relation, holds in relations.items() if not holds]
        if broken:
            raise ValueError(f"limits that cannot work: {'; '.join(broken)}")
