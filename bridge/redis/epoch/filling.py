"""The filler of the gap that an epoch would open with, and the keeper of the backlog that it reads."""

from collections.abc import Coroutine
from functools import partial

from bridge.redis.backlog.filler import Filler, Ground
from bridge.redis.backlog.keeper import Keeper
from bridge.redis.backlog.serving import serving
from bridge.redis.epoch.attempt import Ears
from bridge.redis.epoch.shard import Shard
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.patterns import matcher
from bridge.redis.wire.endpoint import SENTINEL
from bridge.redis.wire.primary import Primary


def filler_of(shard: Shard, primary: Primary, ledger: Ledger, ears: Ears, cause: str) -> Filler | None:
    """The filler; None if the settings do not want one. `cause`: of the gap."""
    runtime, endpoint = shard.runtime, primary.endpoint
    if runtime.settings.redis_backlog == "off":
        return None
    matches = matcher(runtime.settings.bridged_keys(), shard.number, runtime.settings.shards)
    servers = partial(serving, primary.client, endpoint)
    ground = Ground(endpoint, servers, ledger, shard.names, matches, ears.kinds, ears.word, ears.scope, ears.complete)
    return Filler(ground, runtime.limits.backlog, runtime.clock, shard.telemetry, cause)


def keeping(shard: Shard, primary: Primary) -> dict[str, Coroutine[object, object, None]]:
    """The tasks to run beside an epoch, by name. None with sentinels, because there are replicas."""
    runtime, endpoint = shard.runtime, primary.endpoint
    if (
        runtime.settings.redis_backlog != "keep"
        or endpoint.finder == SENTINEL
        or (shard.number != 0 and not shard.cluster)
    ):
        return {}
    keeper = Keeper(primary.client, endpoint, runtime.limits.backlog, runtime.clock, shard.telemetry)
    return {"backlog-keeper": keeper.run()}
