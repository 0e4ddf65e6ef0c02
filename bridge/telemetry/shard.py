"""What happens in one shard of the ledger: as in `events.py`, every event is one function here, which logs and counts.

Gauges and counters have the shard as a label. Log lines name it where there are several.
"""

from collections.abc import Sequence

from bridge.endings import Ending
from bridge.telemetry.common import Common
from bridge.telemetry.fields import FieldTelemetry
from bridge.telemetry.health import Health
from bridge.telemetry.history import Place
from bridge.telemetry.metrics import Metrics
from bridge.telemetry.structured import structlog
from bridge.telemetry.values import ValuesTelemetry

LEASE = "lease"
SUBSCRIPTION = "subscription"
CANARY = "canary"
OUTBOX = "outbox"
LEASE_SECONDS = 5.0
"""How long a lease is valid without a sign of life: `LedgerLimits.lease_ms`."""


class ShardTelemetry(FieldTelemetry, ValuesTelemetry):
    """Made by `Telemetry.shard`."""

    def __init__(self, number: int, of: int, metrics: Metrics, health: Health, common: Common) -> None:
        super().__init__(str(number), metrics)
        self._number = number
        self._of = of
        self._health = health
        self._leases, self._history = common.leases, common.history
        self._first = common.first
        self._place = common.history.places.setdefault(number, Place())
        self._clock = common.history.clock
        self._relieved = False
        """Whether another session of this bridge goes on where the last one stopped: nothing is worse than before."""
        self._canary_awaited: float | None = None
        """Since when the next canary is awaited; None while none is, because another bridge holds the lease."""
        self._flowing = ""
        """The node whose notifications are known to flow, and counted as up."""
        self._lease_seen: float | None = None
        """When the ledger last answered to the epoch of the lease; None while there is none."""
        if of == 1:
            health.unmet(SUBSCRIPTION, "starting")
        elif not common.leases:
            health.unmet(LEASE, "starting")
        self._log = structlog.get_logger() if of == 1 else structlog.get_logger().bind(shard=number)
        self._debug = self._log.bind().debug
        metrics.canary_age.labels(shard=self._shard).set_function(self._canary_age)
        metrics.lease_held.labels(shard=self._shard).set_function(self._lease_held)

    def node_named(self, node: str) -> None:
        """A node whose notifications the bridge will hear."""
        self._place.node, self._flowing = node, ""
        self._metrics.subscription_up.labels(node=node, shard=self._shard).set(0)

    def primary_located(self, node: str, former: str | None) -> None:
        """A primary is named, and says that it is one. `former` is the one before; null at the start."""
        if former is not None:
            self._metrics.subscription_up.remove(former, self._shard)
        self.node_named(node)
        self._log.info("primary.located", node=node, former=former)

    def redis_unreached(self, reason: str, retry_in: float) -> None:
        """Redis cannot be reached, or does not serve us now: the bridge tries again."""
        self._place.holder, self._relieved = None, False
        self._stands_by_no_more()
        self._health.unmet(self._named(SUBSCRIPTION), reason)
        self._log.warning("redis.unreached", reason=reason, retry_in_seconds=round(retry_in, 2))

    def redis_refused(self, reason: str, retry_in: float) -> None:
        """Redis refuses what the bridge needs; an operator must fix it."""
        self._place.holder, self._relieved = None, False
        self._stands_by_no_more()
        self._health.unmet(self._named(SUBSCRIPTION), reason)
        self._log.error("redis.refused", reason=reason, retry_in_seconds=round(retry_in, 2))

    def flags_configured(self, before: str, after: str) -> None:
        """notify-keyspace-events was changed by the bridge."""
        self._log.info("notifications.configured", before=before, after=after)

    def flags_unreadable(self) -> None:
        """CONFIG is refused: marks are the only proof that notifications flow."""
        self._log.warning("notifications.unverified", reason="CONFIG GET is refused; watching the stream instead")

    def ledger_endangered(self, policy: str, remedy: str) -> None:
        """Redis may evict the ledger and the outbox when its memory is full."""
        self._log.warning("ledger.endangered", policy=policy, remedy=remedy)

    def lease_awaited(self, holder: str) -> None:
        """Another bridge holds the lease: standing by."""
        self._without_lease()
        self._place.holder = holder
        self._standing_by()
        self._log.info("lease.awaited", holder=holder)

    def settings_differ(self, differences: Sequence[str]) -> None:
        """The present or last holder of the lease has other settings where all must agree. Logged once for each."""
        if self._first(found := "; ".join(differences)):
            self._log.warning("settings.differed", differences=found)

    def lease_left(self) -> None:
        """Other bridges should hold this shard: the bridge does not ask for it."""
        self._without_lease()
        self._standing_by()

    def lease_acquired(self, fence: int, *, first: bool) -> None:
        """This bridge may change the ledger now."""
        self._lease_seen = self._clock.monotonic()
        self._place.holder = None
        self._leases.add(self._number)
        self._health.met(self._named(OUTBOX))  # the epoch looks anew, and says so where it is full
        if self._of > 1:
            self._health.met(LEASE)
            if not self._relieved:
                self._health.unmet(self._named(SUBSCRIPTION), "the lease was just acquired")
        if self._canary_awaited is None:
            self._canary_awaited = self._clock.monotonic()
        self._log.info("lease.acquired", fence=fence, first=first)

    def ledger_repaired(self, count: int) -> None:
        """The lease, a ledger or the values held things that no bridge writes: that many were removed."""
        self._log.warning("ledger.repaired", count=count)

    def lease_taken_over(self, silent_ms: int | None, hints: int, *, hot: bool, filled: bool = False) -> None:
        """What the former holder left is heard. `hot`: the bridge goes on from there, with that many `hints` waiting.

        `filled`: it was not heard, but read from the replication backlog.
        `silent_ms`: since the former holder's last sign of life; null if it gave the lease back, or there was none.
        """
        self._stands_by_no_more()
        self._history.taken_over(self._number, "hot" if hot else "filled" if filled else "cold", silent_ms)
        (self._taken_hot if hot else self._taken_filled if filled else self._taken_cold).inc()
        if silent_ms is not None:
            self._takeover_silence.set(silent_ms / 1000)
        if not (hot and self._relieved):
            self._health.unmet(self._named(CANARY), "no canary was heard yet: it takes a moment")
        self._relieved = False
        self._log.info("standby.promoted", hot=hot, hints=hints, silent_ms=silent_ms)

    def standby_listens(self, hints: int, *, hot: bool) -> None:
        """Another bridge has the lease. This one keeps that many notifications, to go on from there.

        `hot`: it could, without a gap.
        """
        self._standby_hints.set(hints)
        self._standby_hot.set(hot)

    def standbys_counted(self, count: int | None) -> None:
        """That many other bridges could take over without a gap; null if the Redis user may not ask."""
        self._place.standbys = count

    def relief_failed(self, reason: str, error: str) -> None:
        """Another session of this bridge should take over, for that reason, but cannot be opened: it is tried again."""
        self._metrics.reliefs_failed.inc()
        self._log.warning("relief.failed", reason=reason, error=error)

    def lease_released(self) -> None:
        """The lease was given up."""
        self._without_lease()
        self._log.info("lease.released")

    def gap_opened(self, cause: str, opened_ms: int, until_ms: int) -> None:
        """Notifications between these moments may have been missed. The subscription is confirmed."""
        self._gaps.inc()
        self._history.gap_opened(self._number, cause, opened_ms, until_ms)
        self._gap_open.set(1)
        self._log.warning("gap.opened", cause=cause, opened_ms=opened_ms, span_ms=until_ms - opened_ms)

    def gap_closed(self, recovered: int, ambiguous: int, missed: int | None) -> None:
        """The gap is reconciled. `missed` is null if it is not known."""
        self._gap_open.set(0)
        self._history.gap_closed(self._number, recovered, ambiguous, missed)
        self._recovered.inc(recovered)
        self._ambiguous.inc(ambiguous)
        if missed is None:
            self._unmeasured.inc()
        else:
            self._missed.inc(missed)
        self._log.info("gap.closed", recovered=recovered, ambiguous=ambiguous, missed=missed)

    def mark_returned(self, node: str) -> None:
        """A mark came back: notifications of `node` flow, and everything before it is handled."""
        if node != self._flowing:
            self._metrics.subscription_up.labels(node=node, shard=self._shard).set(1)
            self._flowing = node
        self._health.met(self._named(SUBSCRIPTION))

    def canary_heard(self, lag: float) -> None:
        """Redis notified the expiration of the bridge's own key, `lag` seconds after its deadline."""
        self._canary_awaited = self._clock.monotonic()
        self._canary_lag.set(lag)
        self._canary_heard.set_to_current_time()
        self._health.met(self._named(CANARY))

    def audit_distrusted(self) -> None:
        """Redis's count of expirations does not fit what it notifies: the audit has ended."""
        self._log.error("audit.distrusted", reason="expired_keys repeatedly rises by more than is notified")

    def epoch_ended(self, node: str, ending: Ending, reason: str) -> None:
        """The subscription or the lease was lost, or given up."""
        self._metrics.epochs_ended.labels(reason=ending).inc()
        self._relieved = ending is Ending.RELIEVED
        if not self._relieved:
            self._metrics.subscription_up.labels(node=node, shard=self._shard).set(0)
            self._flowing = ""
            self._health.unmet(self._named(SUBSCRIPTION), reason)
            self._lease_seen = None
        if ending is Ending.LEASE_LOST:
            self._without_lease()
        log = self._log.info if ending in {Ending.SHUTDOWN, Ending.HANDED_OVER, Ending.RELIEVED} else self._log.warning
        log("epoch.ended", ending=ending.value, reason=reason)

    def scan_spared(self) -> None:
        """None is under way: the bridge goes on from where another one was."""
        self._scan_progress.set(1)

    def scan_started(self) -> None:
        """A scan of the keyspace begins."""
        self._scan_keys.set(0)
        self._scan_progress.set(0)

    def scan_progressed(self, keys: int, share: float) -> None:
        """It has found `keys` more, and has gone through this share of the keyspace."""
        self._metrics.scanned.inc(keys)
        self._scan_keys.inc(keys)
        self._scan_progress.set(share)

    def scan_completed(self, keys: int, seconds: float) -> None:
        """The keyspace was gone through."""
        self._scan_seconds.set(seconds)
        self._log.info("scan.completed", keys=keys, seconds=round(seconds, 3))

    def batch_applied(self, by_notification: int, by_sweep: int, forgotten: int) -> None:
        """A batch of hints was handled."""
        self.entries_forgotten(forgotten)
        if by_notification:
            self._by_notification.inc(by_notification)
        if by_sweep:
            self._by_sweep.inc(by_sweep)
        self._debug("batch.applied", by_notification=by_notification, by_sweep=by_sweep)

    def ledger_seen(self, size: int, depth: int) -> None:
        """A script of the epoch said how much there is: the lease is still ours."""
        if self._lease_seen is not None:
            self._lease_seen = self._clock.monotonic()
        self._ledger_size.set(size)
        self._outbox_depth.set(depth)

    def ledger_adopted(self, number: int, *, complete: bool) -> None:
        """Another ledger on this node of a cluster, which belongs to no primary now, was adopted, or has moved on."""
        self._log.info("ledger.adopted", ledger=number, complete=complete)

    def entries_stranded(self, count: int, reason: str) -> None:
        """Entries of keys that are on another node could not be handed over to it: it is tried again."""
        self._log.warning("entries.stranded", count=count, reason=reason)

    def entries_forgotten(self, count: int) -> None:
        """Entries leave the ledger unannounced: BRIDGE_KEYS no longer matches their keys. Logged once, then counted."""
        if not count:
            return
        self._forgotten.inc(count)
        if self._first("entries.forgotten"):
            self._log.warning("entries.forgotten", metric="bridge_forgotten_entries_total")

    def dead_letters_seen(self, count: int) -> None:
        """That many dead letters are kept: messages that the broker will never take."""
        if self._number in self._leases:  # else another bridge reports them: acks may come after the lease is gone
            self._dead_letters.set(count)

    def outbox_filled(self, limit: int) -> None:
        """The sweep pauses until the broker has taken some."""
        self._health.unmet(
            self._named(OUTBOX), f"outbox at its limit of {limit}: the sweep pauses until the broker takes some"
        )
        self._log.error("outbox.filled", limit=limit)

    def outbox_relieved(self) -> None:
        """The sweep goes on."""
        self._health.met(self._named(OUTBOX))
        self._log.info("outbox.relieved")

    def outbox_settled(self, depth: int, dead: int, value_bytes: int | None = None) -> None:
        """Acked expirations were removed from the outbox. `value_bytes`: None if none of them had a value."""
        if self._number in self._leases:
            self._outbox_depth.set(depth)
            if value_bytes is not None:
                self._value_bytes.set(value_bytes)
        self.dead_letters_seen(dead)

    def entry_unreadable(self, entry: str, error: str, dead: int) -> None:
        """Another program has written, or damaged, an entry of the outbox: it is a dead letter now, one of `dead`."""
        self.dead_letters_seen(dead)
        self._log.error("entry.rejected", entry=entry, error=error)

    def gone(self) -> None:
        """The shard no longer exists: slots of a cluster have moved."""
        self._without_lease()
        for condition in (SUBSCRIPTION, CANARY, OUTBOX):
            self._health.met(self._named(condition))
        self._metrics.forget_shard(self._shard)
        self._history.places.pop(self._number, None)

    def _without_lease(self) -> None:
        """Another bridge reports the contents of the shard, so that a sum over all bridges counts them once."""
        self._lease_seen = self._place.holder = self._place.standbys = None
        self._leases.discard(self._number)
        self._canary_awaited = None
        for level in (self._ledger_size, self._outbox_depth, self._dead_letters):
            level.set(0)
        self.values_seen(0, 0)
        self._place.doubt = None
        self._gap_open.set(0)
        self.field_ledger_seen(0)
        if self._of > 1:
            self._scan_progress.set(1)  # of the shards that are held, the least is how far the bridge is

    def _stands_by_no_more(self) -> None:
        self._standby_hints.set(0)
        self._standby_hot.set(0)

    def _lease_held(self) -> float:
        """Whether the lease is held. It runs out if Redis is not reached."""
        return float(self._lease_seen is not None and self._clock.monotonic() - self._lease_seen < LEASE_SECONDS)

    def _standing_by(self) -> None:
        if self._of == 1:
            self._health.unmet(SUBSCRIPTION, "standing by: another bridge holds the lease")
            return
        for condition in (SUBSCRIPTION, CANARY, OUTBOX):
            self._health.met(self._named(condition))
        if not self._leases:
            self._health.unmet(LEASE, "standing by: other bridges hold all shards")

    def _named(self, condition: str) -> str:
        return condition if self._of == 1 else f"{condition} of shard {self._number}"

    def _canary_age(self) -> float:
        return 0.0 if self._canary_awaited is None else self._clock.monotonic() - self._canary_awaited
