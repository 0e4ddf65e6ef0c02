"""The gaps of one source: why each opens, and where it begins."""

from bridge.redis.epoch.shard import Shard
from bridge.redis.protocol.calls import Lease
from bridge.redis.protocol.gap import Gap
from bridge.redis.source.phases import Phases


class Gaps:
    """See the module."""

    def __init__(self, shard: Shard, phases: Phases, cause: str) -> None:
        """`cause`: of the first one."""
        self.cause = cause
        """Why the next one opens, if it does."""
        self._shard = shard
        self._phases = phases

    def open(self, lease: Lease, node: str, start_ms: int) -> Gap:
        """A gap on that node that lasts until `start_ms`, when the bridge was already listening."""
        shard, cause = self._shard, self.cause
        if lease.former is None and self._phases.has_watched:
            cause = f"{cause}; the lease was gone (flushed, deleted or evicted)"
        handled_ms = lease.handled_ms
        if shard.cluster is not None:
            handled_ms = shard.cluster.watermarks.since(node, shard.number, handled_ms)
        # In the very first epoch the gap begins at its start. Redis's clock may have been set back.
        opened_ms = start_ms if handled_ms is None else min(handled_ms, start_ms)
        shard.telemetry.gap_opened(cause, opened_ms, start_ms)
        return Gap(cause, opened_ms, start_ms)

    def caught_up(self, node: str, redis_ms: int) -> None:
        """No gap is open on that node, and everything up to then is handled."""
        cluster = self._shard.cluster
        if cluster is not None:
            cluster.watermarks.handled(node, self._shard.number, redis_ms)
