"""Parts of a source that follow from the settings and the limits alone."""

from collections.abc import Callable

from bridge.backoff import Backoff
from bridge.expiration import Identity
from bridge.redis.epoch.shard import Runtime
from bridge.redis.ledger.outbox import Outbox
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.patterns import matcher
from bridge.redis.wire.endpoint import Endpoint
from bridge.telemetry.shard import ShardTelemetry


def outbox_of(
    runtime: Runtime, ledger: Ledger, names: Names, telemetry: ShardTelemetry, wake: Callable[[], None]
) -> Outbox:
    """The outbox of one shard: it has its part of the limit."""
    settings = runtime.settings
    limit = -(-settings.outbox_limit // settings.shards)
    identity = Identity(settings.source, names.db)
    return Outbox(
        ledger,
        identity,
        limit,
        runtime.limits.ledger,
        telemetry,
        wake,
        shard=names.shard,
        wanted=None if settings.values is None else matcher(settings.values) or _any,
    )


def _any(_: bytes) -> bool:
    return True


def backoff_of(runtime: Runtime, endpoint: Endpoint) -> Backoff:
    """Short where another server may be named at any moment."""
    limits = runtime.limits.source
    return Backoff(limits.backoff_first, limits.failover_pause if endpoint.finder else limits.backoff_most)
