"""Every internal event is one function here, which logs and counts. Nobody else logs or counts.

Events that come once per batch only count, at the cost of a few bound metric children.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from bridge.clock import Clock, SystemClock
from bridge.expiration import Value
from bridge.telemetry.common import Common
from bridge.telemetry.health import Health
from bridge.telemetry.metrics import EXACT, NOT_EXACT, Metrics
from bridge.telemetry.shard import ShardTelemetry
from bridge.telemetry.structured import structlog
from bridge.telemetry.throttle import Throttle

BROKER = "broker"
STUCK = "stuck"
CLUSTER = "cluster"
SHUTDOWN = "shutdown"


class Telemetry:
    """What happens in one process."""

    def __init__(self, clock: Clock | None = None, instance: str = "") -> None:
        """`clock`: the system's, unless a test has another. `instance`: the name of this bridge among others."""
        self._clock = clock or SystemClock()
        self.instance = instance
        self.metrics = Metrics()
        self.health = Health()
        self.health.unmet(BROKER, "starting")
        self._log = structlog.get_logger()
        self._debug = self._log.bind().debug  # bound once, since it comes with each batch, and mostly does nothing
        self._common = Common(self._clock)
        self.history = self._common.history
        self._retried, self._resent, self._rejected = (Throttle(self._clock) for _ in range(3))

    def shard(self, number: int = 0, of: int = 1) -> ShardTelemetry:
        """What happens in one of so many shards."""
        return ShardTelemetry(number, of, self.metrics, self.health, self._common)

    # The process.

    def bridge_started(self, version: str, *, sink: str, keys: Sequence[str], db: int, source: str) -> None:
        """The process has begun to work. `keys` are the patterns of BRIDGE_KEYS."""
        self._log.info("bridge.started", version=version, sink=sink, keys=keys, db=db, source=source)

    def bridge_configured(self, redis: str, broker: Sequence[str], to: str, http: str | None) -> None:
        """What it works with: URLs without logins, the stream or topic, and where its own HTTP port listens."""
        self._log.info("bridge.configured", redis=redis, broker=broker, to=to, http=http)

    def bridge_extended(self, values: Sequence[str], fields: Sequence[str]) -> None:
        """The patterns of BRIDGE_VALUES and BRIDGE_FIELDS, where one of them is set."""
        self._log.info("bridge.extended", values=values, fields=fields)

    def tracing_started(self) -> None:
        """`OTEL_*` variables ask for traces: each expiration that is sampled has one, from its deadline to the ack."""
        self._log.info("tracing.started")

    def tracing_failed(self, reason: str) -> None:
        """`OTEL_*` variables ask for traces, and there are none, for this reason. All else goes on."""
        self._log.warning("tracing.failed", reason=reason)

    def bridge_signalled(self, signal: str) -> None:
        """Asked to end: readiness goes first."""
        self.health.unmet(SHUTDOWN, "shutting down")
        self._log.info("bridge.signalled", signal=signal)

    def bridge_stopped(self, depth: int, *, drained: bool) -> None:
        """The process ends. What waits in the outbox is for the next one."""
        log = self._log.info if drained else self._log.warning
        log("bridge.stopped", drained=drained, waiting_in_outbox=depth)

    def close_timed_out(self, what: str) -> None:
        """A part did not close in its time; the process ends all the same."""
        self._log.warning("close.timed_out", what=what)

    # A cluster.

    def cluster_sought(self) -> None:
        """Redis is a cluster, of which nothing is known yet."""
        self.health.unmet(CLUSTER, "starting")

    def cluster_unreached(self, reason: str, retry_in: float) -> None:
        """No node of the cluster answers: it is tried again."""
        self.health.unmet(CLUSTER, reason)
        self._log.warning("cluster.unreached", reason=reason, retry_in_seconds=round(retry_in, 2))

    def cluster_located(self, primaries: Sequence[str]) -> None:
        """Which primaries it has now, each behind the number of its ledger."""
        self.health.met(CLUSTER)
        self._log.info("cluster.located", primaries=primaries)

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
        """The connection to the broker was lost."""
        self.metrics.broker_up.set(0)
        self.metrics.broker_lost.inc()
        self.health.unmet(BROKER, reason)
        self._log.warning("sink.lost", reason=reason)

    def sink_unreached(self, reason: str, retry_in: float) -> None:
        """The broker cannot be reached: it is tried again."""
        self.health.unmet(BROKER, reason)
        self._log.warning("sink.unreached", reason=reason, retry_in_seconds=round(retry_in, 2))

    def sink_refused(self, reason: str, retry_in: float) -> None:
        """The broker refuses what the bridge needs; an operator must fix it."""
        self.health.unmet(BROKER, reason)
        self._log.error("sink.refused", reason=reason, retry_in_seconds=round(retry_in, 2))

    def stream_warned(self, text: str) -> None:
        """The stream or topic works, but not as it should."""
        self._log.warning("stream.warned", warning=text)

    def messages_in_flight(self, count: int) -> None:
        """So many messages are being published."""
        self.metrics.in_flight.set(count)

    def messages_published(self, count: int, lags: Sequence[float]) -> None:
        """The broker acked `count` messages; `lags` are the seconds since their deadlines, where known."""
        self.metrics.published.inc(count)
        self.metrics.lag.observe(lags)
        self._debug("messages.published", count=count)

    def values_published(self, values: Iterable[Value]) -> None:
        """The broker acked messages of keys whose values are wanted."""
        outcomes = Counter([value.missing or (EXACT if value.exact else NOT_EXACT) for value in values])
        for outcome, count in outcomes.items():
            self.metrics.published_values.labels(outcome=outcome).inc(count)

    def messages_retried(self, count: int, reason: str, retry_in: float) -> None:
        """Messages are sent again. At most one line in ten seconds, with the count since the last one."""
        self.metrics.retried.inc(count)
        if count := self._retried.due(count):
            self._log.warning("messages.retried", count=count, reason=reason, retry_in_seconds=round(retry_in, 2))

    def resent(self, count: int) -> None:
        """The sink sent messages again whose acks did not come in time. At most one line in ten seconds."""
        self.metrics.retried.inc(count)
        if count := self._resent.due(count):
            self._log.info("messages.resent", count=count)

    def messages_rejected(self, reasons: Sequence[str]) -> None:
        """The broker will never take some messages: they become dead letters. At most one line in ten seconds."""
        self.metrics.rejected.inc(len(reasons))
        if count := self._rejected.due(len(reasons)):
            self._log.error("messages.rejected", count=count, reason=reasons[0])

    def messages_stuck(self, on: str, count: int, reason: str, seconds: float) -> None:
        """The broker does not take some messages on this subject or topic, while it may take others."""
        self.history.messages_stuck(on, reason, seconds)
        self._log.warning("messages.stuck", on=on, count=count, reason=reason, seconds=round(seconds, 1))

    def messages_unstuck(self, on: str) -> None:
        """The broker has taken them, or they are dead letters."""
        self.history.stuck.pop(on, None)
        self._log.info("messages.unstuck", on=on)

    def stuck_counted(self, count: int, oldest_seconds: float, reason: str) -> None:
        """How many messages are stuck, and how long any is; `reason` says where and why, and is empty if none is."""
        self.metrics.stuck.set(count)
        self.metrics.stuck_age.set(oldest_seconds)
        if reason:
            self.health.unmet(STUCK, reason)
        else:
            self.health.met(STUCK)

    def outbox_unreached(self, reason: str, retry_in: float) -> None:
        """Redis does not answer delivery: it is tried again."""
        self._log.warning("outbox.unreached", reason=reason, retry_in_seconds=round(retry_in, 2))
