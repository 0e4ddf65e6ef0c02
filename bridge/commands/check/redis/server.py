"""What Redis must be for the bridge: one small function per check.

Nothing is changed, but for a key of the bridge's own that lives for a tenth of a second.
To add one, write the function and enter it in CHECKS.
"""

from collections.abc import Awaitable, Callable, Mapping

from bridge.commands.check.findings import Finding, Row, failed_with, failure, passed, warning
from bridge.commands.check.redis.backlog import replication_backlog
from bridge.commands.check.redis.connections import command_limits, login_renewal, size, subscriber_buffer
from bridge.commands.check.redis.sentinel import check_cut_off, check_sentinels
from bridge.commands.check.redis.settings import check_settings
from bridge.commands.check.redis.values import values
from bridge.errors import ErrorKind, NotConnected, Refused, Unusable
from bridge.redis.admin.acl import acl_rule, denied, denied_to_standby, may_set_flags
from bridge.redis.admin.canary import try_canary
from bridge.redis.admin.inspector import Inspector
from bridge.redis.protocol.notifications import NEEDED_FLAGS, missing_flags
from bridge.redis.wire.errors import cluster_url
from bridge.redis.wire.notify_flags import FLAGS, least_flags
from bridge.settings import Settings

AREA = "Redis"
CLOCK_SECONDS = 1.0
NAMES_SHOWN = 8
LAST_WRITES = {"the append-only file": "aof_last_write_status", "a snapshot": "rdb_last_bgsave_status"}
TOLD_ELSEWHERE = {ErrorKind.DENIED, ErrorKind.DISK, ErrorKind.MEMORY}
"""Why Redis would not set a key, where another check has said so."""
HZ, DEFAULT_HZ = 100, 10
"""Somebody who wants timely notifications may have raised it far beyond the default."""

Check = Callable[[Inspector], Awaitable[Finding | None]]
"""None: there is nothing to say, since another check has said it."""


async def check_redis(settings: Settings) -> list[Row]:
    """All rows about Redis; only the first where it cannot be reached. Raises ConfigurationError."""
    inspector = Inspector(settings)
    try:
        rows = [Row(AREA, "connection", await _connection(inspector))]
        if rows[0].finding.level == "pass":
            for name, check in CHECKS.items():
                if (finding := await safely(check, inspector)) is not None:
                    rows.append(Row(AREA, name, finding))
    finally:
        await inspector.close()
    return rows


async def _connection(redis: Inspector) -> Finding:
    remedy = "start Redis there, or point BRIDGE_REDIS_URL at where it is"
    if redis.sentinels is not None:
        remedy = "look at the sentinels and at what they monitor (SENTINEL MASTERS), or correct BRIDGE_REDIS_URL"
    try:
        await redis.connect()
    except (NotConnected, Refused) as error:
        return unusable(error, redis.settings, remedy)
    return passed(f"{redis.endpoint}, db {redis.endpoint.db}, as user {redis.user}")


def unusable(error: Unusable, settings: Settings, remedy: str) -> Finding:
    """A server that does not serve us: for lack of a right, or for what `remedy` fixes."""
    if error.kind is ErrorKind.DENIED:
        return failure(error.found, acl_rule(settings))
    return failed_with(error, remedy)


async def safely(check: Check, redis: Inspector) -> Finding | None:
    """One check must not hide the others."""
    try:
        return await check(redis)
    except NotConnected as error:
        return failed_with(error, "run the check again when Redis is stable")
    except Refused as error:
        return warning(f"cannot be read: {error}", "ask the operators of this Redis")


async def _version(redis: Inspector) -> Finding:
    server = await redis.server()
    if server is None:
        return _unreadable("INFO", "the bridge needs Redis 7.0 or Valkey 7.2, or newer")
    found = f"{server.product} {server.version}"
    if not server.supported:
        return failure(
            f"{found} has no PEXPIRETIME, by which the bridge reads deadlines",
            "upgrade to Redis 7.0 or Valkey 7.2, or newer",
        )
    if redis.settings.fields and not server.has_fields:
        return failure(
            f"{found} does not let fields of hashes expire, and BRIDGE_FIELDS is set",
            "upgrade to Redis 7.4 or Valkey 9.0, or newer; or unset BRIDGE_FIELDS",
        )
    return passed(found)


async def _role(redis: Inspector) -> Finding:
    server, info = await redis.server(), await redis.info("replication")
    if server is None or info is None:
        return _unreadable("INFO", "BRIDGE_REDIS_URL must name a primary")
    if server.clustered and redis.topology is None:
        return failure(
            "a node of a cluster: it has only some of the keys, and may not have the bridge's own",
            f"set BRIDGE_REDIS_URL to {cluster_url(redis.endpoint)}",
        )
    if server.primary:
        return passed("primary")
    primary = f"{info.get('master_host')}:{info.get('master_port')}"
    return failure(
        "a replica: only a primary expires keys by itself, and takes writes",
        f"point BRIDGE_REDIS_URL at the primary: this replica follows {primary}",
    )


async def _import_mode(redis: Inspector) -> Finding | None:
    """Valkey's: nothing to say where there is none."""
    if await redis.directive("import-mode") != "yes":
        return None
    return failure(
        "import-mode yes: it hides keys that are past their deadline, and expires none",
        "finish the import, then CONFIG SET import-mode no",
    )


async def _notifications(redis: Inspector) -> Finding:
    flags, needed = await redis.flags(), least_flags(redis.settings)
    if flags is None:
        return warning(
            f"{FLAGS} cannot be read: CONFIG GET is refused",
            f"make sure that it holds {needed}; the bridge notices when notifications do not come",
        )
    missing = missing_flags(flags, needed)
    if not missing:
        return passed(f"{FLAGS} is '{flags}'")
    found = f"{FLAGS} is '{flags}' and lacks {missing}"
    remedy = f"CONFIG SET {FLAGS} {flags}{missing}, and the same in its configuration file"
    if redis.settings.redis_notifications == "verify":
        return failure(f"{found}; the bridge may not add it (BRIDGE_REDIS_NOTIFICATIONS=verify)", remedy)
    if not await may_set_flags(redis):
        return failure(f"{found}; the bridge may not add it (CONFIG SET is refused)", remedy)
    return warning(f"{found}; the bridge adds it when it starts", f"{remedy}, to have it from the start")


async def _fields(redis: Inspector) -> Finding | None:
    """Nothing to say where no fields are bridged, or the row on the version says why they cannot be."""
    server = await redis.server()
    if not redis.settings.fields or server is None or not server.has_fields:
        return None
    told = (
        "names the fields that expire" if server.names_fields else "names no field: the bridge finds out which expire"
    )
    return passed(f"the server {told}; how many it never notifies is unknown, as its own count is too low")


async def _permissions(redis: Inspector) -> Finding:
    lacking = await denied(redis)
    if not lacking:
        if apart := await denied_to_standby(redis):
            return warning(
                f"user {redis.user} may not use {', '.join(apart)}: when a bridge dies, a standby takes over only when"
                " the lease ends, after 5 s, and with a gap",
                acl_rule(redis.settings),
            )
        return passed(f"user {redis.user} may do all that the bridge needs")
    more = len(lacking) - NAMES_SHOWN
    names = ", ".join(lacking[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return failure(
        f"user {redis.user} may not run, or not on the bridge's keys and channels: {names}", acl_rule(redis.settings)
    )


async def _eviction(redis: Inspector) -> Finding:
    policy = await redis.directive("maxmemory-policy")
    if policy is None:
        info = await redis.info("memory")
        policy = str(info["maxmemory_policy"]) if info and "maxmemory_policy" in info else None
    if policy is None:
        return _unreadable("CONFIG GET and INFO", "maxmemory-policy must be noeviction or one of volatile-*")
    if policy.startswith("allkeys"):
        if (server := await redis.server()) and server.blesses:
            own = redis.names.own_pattern.decode()
            return warning(
                f"maxmemory-policy {policy}: the bridge has Redis spare the ledger and the outbox (BLESS),"
                " but for the first second of each",
                "CONFIG SET maxmemory-policy noeviction (or one of volatile-*); without that, let the bridge's user"
                f" protect its keys: ACL SETUSER {redis.user} (~{own} +bless|set)",
            )
        return failure(
            f"maxmemory-policy {policy} can evict the deadline ledger and the outbox",
            "CONFIG SET maxmemory-policy noeviction (or one of volatile-*), and the same in its configuration file",
        )
    if policy == "noeviction" and (full := await _full(redis)):
        return full
    note = " (evicted keys count as deleted, not as expired)" if policy.startswith("volatile") else ""
    return passed(f"maxmemory-policy {policy}{note}")


async def _full(redis: Inspector) -> Finding | None:
    memory = await redis.info("memory") or {}
    used, limit = int(str(memory.get("used_memory", 0))), int(str(memory.get("maxmemory", 0)))
    if not 0 < limit <= used:
        return None
    return warning(
        f"the memory is full ({size(used)} of {size(limit)}): Redis refuses the writes of your services",
        f"CONFIG SET maxmemory {2 * used} (or more), and the same in its configuration file",
    )


async def _persistence(redis: Inspector) -> Finding:
    info, save = await redis.info("persistence"), await redis.directive("save")
    if info is None or "aof_enabled" not in info:
        return _unreadable("INFO", "without an append-only file a restart of Redis loses the ledger and the outbox")
    if failed := [what for what, last in LAST_WRITES.items() if info.get(last) == "err"]:
        return failure(
            f"the last attempt to write {' and '.join(failed)} failed: Redis may refuse all writes (MISCONF)",
            "make room on its disk, and see that it may write to its directory (CONFIG GET dir), then BGSAVE",
        )
    if info["aof_enabled"]:
        return await _append_only(redis)
    remedy = "CONFIG SET appendonly yes, and the same in its configuration file"
    if save is None:
        return warning("no append-only file; whether there are snapshots cannot be read: CONFIG GET is refused", remedy)
    if save:
        return warning("snapshots only: a crash of Redis loses what came after the last one", remedy)
    return warning("none: a restart of Redis loses the ledger and the outbox, and all keys", remedy)


async def _append_only(redis: Inspector) -> Finding:
    if await redis.directive("appendfsync") != "no":
        return passed("append-only file")
    return warning(
        "append-only file, with appendfsync no: a crash of the machine loses what its system has not written yet",
        "CONFIG SET appendfsync everysec, and the same in its configuration file",
    )


async def _clock(redis: Inspector) -> Finding:
    ahead = await redis.clock_ahead()
    if abs(ahead) <= CLOCK_SECONDS:
        return passed(f"within {CLOCK_SECONDS:g} s of this machine's")
    return warning(
        f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's:"
        " harmless, deadlines are always on Redis's clock",
        "synchronise both clocks (NTP), or reading logs side by side will mislead",
    )


async def _canary(redis: Inspector) -> Finding | None:
    try:
        flags = await redis.flags()
    except (NotConnected, Refused):
        return None
    if flags is not None and missing_flags(flags):
        return None
    try:
        lag = await try_canary(redis)
    except (NotConnected, Refused) as error:
        return None if (await _role(redis)).level == "fail" else _not_set(error)
    if lag is not None:
        return passed(
            f"a key of the bridge's own expired, and its notification came {lag * 1000:.0f} ms after its deadline"
        )
    return failure(
        "a key of the bridge's own expired, and no notification came",
        f"set {FLAGS} to {NEEDED_FLAGS} (with the provider's console, where CONFIG is refused)",
    )


def _not_set(error: Unusable) -> Finding | None:
    """The canary could not even be tried."""
    if error.kind in TOLD_ELSEWHERE:
        return None
    if error.kind is ErrorKind.CLUSTER_DOWN:
        return failure(
            "a key of the bridge's own cannot be set: the cluster is down",
            "see what it lacks: redis-cli --cluster check HOST:PORT",
        )
    remedy = error.remedy or "look into its log"
    if error.kind is ErrorKind.REPLICAS:
        remedy = "start the replicas that min-replicas-to-write asks for; or CONFIG SET min-replicas-to-write 0"
    return failure(f"a key of the bridge's own cannot be set: {error.found}", remedy)


async def _hz(redis: Inspector) -> Finding:
    hz = await redis.directive("hz")
    if hz is None or not hz.isdecimal():
        return passed("unknown, but irrelevant: the bridge touches each key at its deadline")
    if int(hz) > HZ:
        return warning(f"hz {hz}: costs CPU, and the bridge does not need it", f"CONFIG SET hz {DEFAULT_HZ}")
    return passed(f"hz {hz}: irrelevant, the bridge touches each key at its deadline")


def _unreadable(command: str, remedy: str) -> Finding:
    return warning(f"cannot be read: {command} is refused", f"make sure of it: {remedy}")


CHECKS: Mapping[str, Check] = {
    "sentinels": check_sentinels,
    "cut-off primary": check_cut_off,
    "version": _version,
    "role": _role,
    "import mode": _import_mode,
    "notifications": _notifications,
    "fields": _fields,
    "permissions": _permissions,
    "login renewal": login_renewal,
    "eviction": _eviction,
    "persistence": _persistence,
    "clock": _clock,
    "subscriber buffer": subscriber_buffer,
    "command limits": command_limits,
    "replication backlog": replication_backlog,
    "values": values,
    "hz": _hz,
    "settings": check_settings,
    "canary": _canary,
}
