"""Whether the values that `BRIDGE_VALUES` asks for can be read, and proven. Nothing to say where none are wanted."""

from bridge.commands.check.findings import Finding, failure, passed, warning
from bridge.commands.check.redis.connections import size
from bridge.redis.admin.acl import acl_rule
from bridge.redis.admin.inspector import Inspector
from bridge.redis.admin.values_trial import denied_newer_reads, denied_values, try_tracking
from bridge.redis.wire.conversation import conversation
from bridge.redis.wire.tracking import trackable

SHOWN = 6
FEW = 20
"""Entries of the ledger: of fewer, nothing is concluded."""


async def values(redis: Inspector) -> Finding | None:
    """The rights, the proof, the lead."""
    return None if redis.settings.values is None else await _examined(redis)


async def _examined(redis: Inspector) -> Finding:
    settings = redis.settings
    if lacking := await denied_values(redis):
        more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
        return failure(
            f"user {redis.user} may not run {', '.join(lacking[:SHOWN])}{more}: values are missing, or not proven",
            acl_rule(settings),
        )
    server = await redis.server()
    if server is not None and not trackable(server, redis.endpoint):
        return warning(
            f"{server.product} {server.version} tracks only keys that a script declares, which it cannot in a cluster:"
            " value_exact is always false",
            "upgrade to Redis 7.4 or Valkey 8, or newer",
        )
    if why := await try_tracking(redis):
        return warning(
            f"Redis does not say when a key was written ({why}): value_exact is always false",
            "connect to the server itself, not to a proxy; some managed services do not offer client-side caching",
        )
    if newer := await denied_newer_reads(redis):
        return warning(
            "deadlines of hash fields, or JSON documents, may not be read: such hashes are not proven, such documents"
            " are missing",
            f"ACL SETUSER {redis.user} {' '.join(newer)}",
        )
    if await _soon(redis):
        return warning(
            f"most deadlines are nearer than BRIDGE_VALUES_LEAD ({settings.values_lead:g} s): each refresh of a key"
            " reads its value again",
            "set BRIDGE_VALUES_LEAD to less than the usual TTL",
        )
    bound = size(settings.values_max_bytes)
    return passed(f"read {settings.values_lead:g} s before the deadline, up to {bound} each, and proven")


async def _soon(redis: Inspector) -> bool:
    """Whether most keys of the ledger expire within the lead."""
    now_ms = await redis.now_ms()
    until = now_ms + int(redis.settings.values_lead * 1000)
    near = total = 0
    for names in await redis.shards():
        async with conversation(redis.endpoint):
            near += int(await redis.client.zcount(names.deadlines, now_ms, until))
            total += int(await redis.client.zcard(names.deadlines))
    return total >= FEW and 2 * near > total
