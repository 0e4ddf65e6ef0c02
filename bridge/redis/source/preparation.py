"""What has to hold of a server before a bridge works on it: it fits, it notifies, and all bridges count the same."""

from bridge.errors import Refused
from bridge.redis.epoch.shard import Shard
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.wire import notify_flags
from bridge.redis.wire.primary import Primary
from bridge.redis.wire.server import inspect, require


async def prepare(shard: Shard, primary: Primary, ledger: Ledger) -> None:
    """See to it that all of that holds. Raises NotConnected or Refused."""
    server = await inspect(primary.client, primary.endpoint)
    require(server, primary.endpoint)
    if server.evicts_all:
        shard.telemetry.ledger_endangered(server.eviction)
    configure = shard.runtime.settings.redis_notifications == "configure"
    await notify_flags.switch_on(primary.client, primary.endpoint, shard.telemetry, configure=configure)
    if shard.cluster is None:  # else the cluster decides which ledger has a key
        await _agree(shard, primary, ledger)


async def _agree(shard: Shard, primary: Primary, ledger: Ledger) -> None:
    """Raise unless all bridges count the same shards: which one a key belongs to depends on their number."""
    wanted = shard.runtime.settings.shards
    shards = await ledger.roster.agree(wanted)
    if not shards:
        key = shard.names.shards.decode()
        raise Refused(
            f"the key {key} in Redis at {primary.endpoint} holds no number of shards: no bridge wrote that",
            f"delete it (redis-cli UNLINK '{key}')",
        )
    if shards != wanted:
        raise Refused(
            f"the ledger in Redis at {primary.endpoint} has {shards} shards, and BRIDGE_SHARDS is {wanted}",
            f"set BRIDGE_SHARDS to {shards} (how to change the number: deploy/docs/how-to/shards.md)",
        )
