"""Every internal event is one function here, which logs and counts. Nobody else logs or counts.

Events that come once per batch only count, at the cost of a few bound metric children.
"""

from collections.abc import Callable, Sequence

import structlog

from bridge.clock import Clock, SystemClock
from bridge.telemetry.endings import Ending
from bridge.telemetry.health import Health
from bridge.telemetry.metrics import Metrics

SUBSCRIPTION = "subscription"
BROKER = "broker"
CANARY = "canary"
OUTBOX = "outbox"


class Telemetry:
    """What happens in one process."""

    def __init__(self, clock: Clock | None = None) -> None:
        """`clock`: the system's, unless a test has another."""
        self._clock = clock or SystemClock()
        self._canary_awaited: float | None = None
        """Since when the next canary is awaited; None while none is, because another bridge holds the lease."""
        self.metrics = Metrics()
        self.metrics.canary_age.set_function(self._canary_age)
        self.health = Health()
        self.health.unmet(SUBSCRIPTION, "starting")
        self.health.unmet(BROKER, "starting")
        self._log = structlog.get_logger()
        self._by_notification = self.metrics.claimed.labels(via="notification")
        self._by_sweep = self.metrics.claimed.labels(via="sweep")

    # The process.

    def bridge_started(self, version: str, *, sink: str, keys: Sequence[str], db: int, source: str) -> None:
        """The process has begun to work. `keys` are the patterns of BRIDGE_KEYS."""
        self._log.info("bridge.started", version=version, sink=sink, keys=keys, db=db, source=source)

    def bridge_signalled(self, signal: str) -> None:
        """Asked to end: readiness goes first."""
        self.health.unmet("shutdown", "shutting down")
        self._log.info("bridge.signalled", signal=signal)

    def bridge_stopped(self, depth: int, *, drained: bool) -> None:
        """The process ends. What waits in the outbox is for the next one."""
        log = self._log.info if drained else self._log.warning
        log("bridge.stopped", drained=drained, waiting_in_outbox=depth)

    def close_timed_out(self, what: str) -> None:
        """A part did not close in its time; the process ends all the same."""
        self._log.warning("close.timed_out", what=what)

    # The source.

    def node_named(self, node: str) -> None:
        """A node whose notifications the bridge is going to hear."""
        self.metrics.subscription_up.labels(node=node).set(0)

    def primary_located(self, node: str, former: str | None) -> None:
        """Sentinels name a primary, and it says that it is one. `former` is the one before; null at the start."""
        if former is not None:
            self.metrics.subscription_up.remove(former)
        self.node_named(node)
        self._log.info("primary.located", node=node, former=former)

    def redis_unreached(self, reason: str, retry_in: float) -> None:
        """Redis cannot be reached, or does not serve us now: it is tried again."""
        self.health.unmet(SUBSCRIPTION, reason)
        self._log.warning("redis.unreached", reason=reason, retry_in_seconds=round(retry_in, 2))

    def redis_refused(self, reason: str, retry_in: float) -> None:
        """Redis refuses what the bridge needs; somebody must mend it."""
        self.health.unmet(SUBSCRIPTION, reason)
        self._log.error("redis.refused", reason=reason, retry_in_seconds=round(retry_in, 2))

    def flags_configured(self, before: str, after: str) -> None:
        """notify-keyspace-events was changed by the bridge."""
        self._log.info("notifications.configured", before=before, after=after)

    def flags_unreadable(self) -> None:
        """CONFIG is refused: marks are the only proof that notifications flow."""
        self._log.warning("notifications.unverified", reason="CONFIG GET is refused; watching the stream instead")

    def lease_awaited(self, holder: str) -> None:
        """Another bridge holds the lease: standing by."""
        self._without_lease()
        self.health.unmet(SUBSCRIPTION, "standing by: another bridge holds the lease")
        self._log.info("lease.awaited", holder=holder)

    def lease_acquired(self, fence: int, *, first: bool) -> None:
        """This bridge may change the ledger now."""
        self.metrics.lease_held.set(1)
        if self._canary_awaited is None:
            self._canary_awaited = self._clock.monotonic()
        self._log.info("lease.acquired", fence=fence, first=first)

    def lease_released(self) -> None:
        """The lease was given up."""
        self._without_lease()
        self._log.info("lease.released")

    def gap_opened(self, cause: str, opened_ms: int, until_ms: int) -> None:
        """Notifications between these moments may have been missed. The subscription is confirmed."""
        self.metrics.gaps.inc()
        self.metrics.gap_open.set(1)
        self.health.unmet(CANARY, "no canary was heard of yet: it takes a moment")
        self._log.warning("gap.opened", cause=cause, opened_ms=opened_ms, span_ms=until_ms - opened_ms)

    def gap_closed(self, recovered: int, ambiguous: int, missed: int | None) -> None:
        """The gap is reconciled. `missed` is null where nobody can tell."""
        self.metrics.gap_open.set(0)
        self.metrics.recovered.inc(recovered)
        self.metrics.ambiguous.inc(ambiguous)
        if missed is not None:
            self.metrics.missed.inc(missed)
        self._log.info("gap.closed", recovered=recovered, ambiguous=ambiguous, missed=missed)

    def mark_returned(self, node: str) -> None:
        """A mark came back: notifications of `node` flow, and all before it is handled."""
        self.metrics.subscription_up.labels(node=node).set(1)
        self.health.met(SUBSCRIPTION)

    def canary_heard(self, lag: float) -> None:
        """Redis told of the expiration of the bridge's own key, `lag` seconds after its deadline."""
        self._canary_awaited = self._clock.monotonic()
        self.metrics.canary_lag.set(lag)
        self.metrics.canary_heard.set_to_current_time()
        self.health.met(CANARY)

    def audit_distrusted(self) -> None:
        """Redis's count of expirations does not fit what it notifies: there is no audit any more."""
        self._log.error("audit.distrusted", reason="expired_keys rises by more than what is notified, again and again")

    def epoch_ended(self, node: str, ending: Ending, reason: str) -> None:
        """The subscription or the lease was lost, or given up."""
        self.metrics.subscription_up.labels(node=node).set(0)
        self.metrics.epochs_ended.labels(reason=ending).inc()
        self.health.unmet(SUBSCRIPTION, reason)
        if ending is Ending.LEASE_LOST:
            self._without_lease()
        log = self._log.info if ending is Ending.SHUTDOWN else self._log.warning
        log("epoch.ended", ending=ending.value, reason=reason)

    def scan_started(self) -> None:
        """A scan of the keyspace begins."""
        self.metrics.scan_keys.set(0)
        self.metrics.scan_progress.set(0)

    def scan_progressed(self, keys: int, share: float) -> None:
        """It has found `keys` more, and has gone through this share of the keyspace."""
        self.metrics.scanned.inc(keys)
        self.metrics.scan_keys.inc(keys)
        self.metrics.scan_progress.set(share)

    def scan_completed(self, keys: int, seconds: float) -> None:
        """The keyspace was gone through."""
        self.metrics.scan_seconds.set(seconds)
        self._log.info("scan.completed", keys=keys, seconds=round(seconds, 3))

    def batch_applied(self, by_notification: int, by_sweep: int) -> None:
        """A batch of hints was handled."""
        if by_notification:
            self._by_notification.inc(by_notification)
        if by_sweep:
            self._by_sweep.inc(by_sweep)

    def ledger_seen(self, size: int, depth: int) -> None:
        """A script said how much there is."""
        self.metrics.ledger_size.set(size)
        self.metrics.outbox_depth.set(depth)

    def dead_letters_seen(self, count: int) -> None:
        """So many messages are kept that the broker will never take."""
        self.metrics.dead_letters.set(count)

    def outbox_filled(self, limit: int) -> None:
        """The sweep pauses until the broker has taken some."""
        self.health.unmet(OUTBOX, f"outbox at its limit of {limit}: the sweep pauses until the broker takes some")
        self._log.error("outbox.filled", limit=limit)

    def outbox_relieved(self) -> None:
        """The sweep goes on."""
        self.health.met(OUTBOX)
        self._log.info("outbox.relieved")

    # Delivery.

    def outbox_watched(self, oldest_age: Callable[[], float]) -> None:
        """Delivery tells at any time how many seconds ago the oldest entry of the outbox was claimed."""
        self.metrics.outbox_age.set_function(oldest_age)

    def sink_connected(self) -> None:
        """The broker is there."""
        self.metrics.broker_up.set(1)
        self.health.met(BROKER)
        self._log.info("sink.connected")

    def sink_lost(self, reason: str) -> None:
        """The broker is not there any more."""
        self.metrics.broker_up.set(0)
        self.metrics.broker_lost.inc()
        self.health.unmet(BROKER, reason)
        self._log.warning("sink.lost", reason=reason)

    def sink_unreached(self, reason: str, retry_in: float) -> None:
        """The broker cannot be reached: it is tried again."""
        self.health.unmet(BROKER, reason)
        self._log.warning("sink.unreached", reason=reason, retry_in_seconds=round(retry_in, 2))

    def sink_refused(self, reason: str, retry_in: float) -> None:
        """The broker refuses what the bridge needs; somebody must mend it."""
        self.health.unmet(BROKER, reason)
        self._log.error("sink.refused", reason=reason, retry_in_seconds=round(retry_in, 2))

    def stream_warned(self, text: str) -> None:
        """The stream or topic works, but not as it should."""
        self._log.warning("stream.warned", warning=text)

    def reconnected(self, reason: str) -> None:
        """The broker is there again; `reason` is the sink's own, why the last connection ended."""
        self._log.warning("sink.reconnected", reason=reason)

    def messages_in_flight(self, count: int) -> None:
        """So many messages are being published."""
        self.metrics.in_flight.set(count)

    def messages_published(self, count: int, lags: Sequence[float]) -> None:
        """The broker acked `count` messages; `lags` are the seconds since their deadlines, where known."""
        self.metrics.published.inc(count)
        self.metrics.lag.observe(lags)

    def messages_retried(self, count: int, reason: str, retry_in: float) -> None:
        """A batch is sent again."""
        self.metrics.retried.inc(count)
        self._log.warning("messages.retried", count=count, reason=reason, retry_in_seconds=round(retry_in, 2))

    def resent(self, count: int) -> None:
        """The sink sent messages again whose acks did not come in time."""
        self.metrics.retried.inc(count)
        self._log.info("messages.resent", count=count)

    def messages_rejected(self, reasons: Sequence[str]) -> None:
        """The broker will never take some messages: they become dead letters."""
        self.metrics.rejected.inc(len(reasons))
        self._log.error("messages.rejected", count=len(reasons), reason=reasons[0])

    def outbox_settled(self, depth: int, dead: int) -> None:
        """Acked expirations were removed from the outbox."""
        self.metrics.outbox_depth.set(depth)
        self.dead_letters_seen(dead)

    def entry_unreadable(self, entry: str, error: str, dead: int) -> None:
        """Somebody else has written, or damaged, an entry of the outbox: it is a dead letter now, one of `dead`."""
        self.dead_letters_seen(dead)
        self._log.error("entry.rejected", entry=entry, error=error)

    def outbox_unreached(self, reason: str, retry_in: float) -> None:
        """Redis does not answer delivery: it is tried again."""
        self._log.warning("outbox.unreached", reason=reason, retry_in_seconds=round(retry_in, 2))

    def _without_lease(self) -> None:
        self.metrics.lease_held.set(0)
        self._canary_awaited = None

    def _canary_age(self) -> float:
        return 0.0 if self._canary_awaited is None else self._clock.monotonic() - self._canary_awaited
