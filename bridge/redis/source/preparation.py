"""What a server must satisfy before a bridge works on it: it fits, it notifies, and all bridges agree on the shards."""

from bridge.errors import Refused
from bridge.redis.epoch.shard import Shard
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.wire import notify_flags
from bridge.redis.wire.primary import Primary
from bridge.redis.wire.server import count_differs, inspect, require


async def prepare(shard: Shard, primary: Primary, ledger: Ledger) -> None:
    """Check it, and set what may be set. Raises NotConnected or Refused."""
    server = await inspect(primary.client, primary.endpoint)
    require(server, primary.endpoint)
    if server.evicts_all and not server.blesses:  # else the epoch sees to it (epoch/protection.py)
        shard.telemetry.ledger_endangered(server.eviction, "set maxmemory-policy to noeviction or volatile-*")
    configure = shard.runtime.settings.redis_notifications == "configure"
    naming = server.names_fields
    await notify_flags.switch_on(primary.client, primary.endpoint, shard.telemetry, configure=configure, naming=naming)
    if shard.cluster is None:  # else the cluster decides which ledger has a key
        await _agree(shard, primary, ledger)


async def _agree(shard: Shard, primary: Primary, ledger: Ledger) -> None:
    """Raise unless all bridges have the same number of shards: it decides to which shard a key belongs."""
    wanted = shard.runtime.settings.shards
    shards = await ledger.roster.agree(wanted)
    if not shards:
        key = shard.names.shards.decode()
        raise Refused(
            f"the key {key} in Redis at {primary.endpoint} holds no number of shards: no bridge wrote that",
            f"delete it (redis-cli UNLINK '{key}')",
        )
    if shards != wanted:
        raise count_differs(primary.endpoint, shards, wanted)
