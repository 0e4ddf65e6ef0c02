"""What may fill the gap that an epoch would open with."""

from bridge.redis.backlog.filler import Filler, Ground
from bridge.redis.epoch.attempt import Ears
from bridge.redis.epoch.shard import Shard
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.patterns import matcher
from bridge.redis.wire.endpoint import Endpoint


def filler_of(shard: Shard, endpoint: Endpoint, ledger: Ledger, ears: Ears, cause: str) -> Filler | None:
    """None where it is not wanted. `cause`: of the gap."""
    runtime = shard.runtime
    if runtime.settings.redis_backlog == "off" or endpoint.finder:
        return None
    matches = matcher(runtime.settings.bridged_keys(), shard.number, runtime.settings.shards)
    ground = Ground(endpoint, ledger, shard.names, matches, ears.kinds, ears.word, ears.scope, ears.complete)
    return Filler(ground, runtime.limits.backlog, runtime.clock, shard.telemetry, cause)
