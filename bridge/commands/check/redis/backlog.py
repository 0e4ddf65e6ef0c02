"""What Redis's replication backlog can reveal of a gap, and what that needs. No rows if it is not used."""

from collections.abc import Mapping

from bridge.commands.check.findings import Finding, passed, warning
from bridge.commands.check.redis.connections import size
from bridge.errors import Refused
from bridge.limits import BacklogLimits
from bridge.redis.admin.acl import acl_rule, denied_to_filler
from bridge.redis.admin.inspector import Inspector
from bridge.redis.backlog.serving import replicas
from bridge.redis.wire.endpoint import SENTINEL

SAMPLE = 0.5
"""Seconds in which what is written is counted."""
LEAST = 10.0
"""Seconds that the backlog should cover: as long as a bridge takes to start, or to be started again."""
WORDS = {"yes": "UNLINK", "no": "DEL"}


async def replication_backlog(redis: Inspector) -> Finding | None:
    """Whether a gap could be filled, of how many seconds, and what a deletion by a user looks like there."""
    return None if redis.settings.redis_backlog == "off" else await _examined(redis)


async def _examined(redis: Inspector) -> Finding:
    info = await redis.info("replication")
    if info is None:
        return warning("cannot be read: INFO is refused, and no gap is filled", acl_rule(redis.settings))
    if denied := await _denied(redis):
        return warning(f"user {redis.user} may not use {', '.join(denied)}: no gap is filled", acl_rule(redis.settings))
    if redis.endpoint.finder == SENTINEL and not replicas(dict(info), redis.endpoint):
        return warning("there is no replica to read from: no gap is filled", "add a replica")
    if info.get("repl_backlog_active") == 1:
        return await _covered(redis, info)
    if redis.settings.redis_backlog == "keep":
        return await _to_be_made(redis)
    return warning(
        "Redis keeps no replication backlog, because no replica was ever attached: no gap is filled",
        "attach a replica, or set BRIDGE_REDIS_BACKLOG=keep",
    )


async def _to_be_made(redis: Inspector) -> Finding:
    """What `keep` is going to do."""
    holds = size(int(await redis.directive("repl-backlog-size") or 0))
    delay = await redis.directive("repl-diskless-sync-delay") or ""
    waits = delay.isdigit() and int(delay) > BacklogLimits().fill
    if waits and await redis.directive("repl-diskless-sync") == "yes":
        return await _with_word(
            redis, f"none yet: the bridge will make Redis keep one, of {holds} of memory, without a fork"
        )
    return warning(
        "Redis keeps none, and would fork as soon as it is asked for one: no gap is filled",
        "CONFIG SET repl-diskless-sync yes repl-diskless-sync-delay 5, and the same in its configuration file",
    )


async def _covered(redis: Inspector, info: Mapping[str, object]) -> Finding:
    holds = int(str(info.get("repl_backlog_size", 0)))
    rate = await _rate(redis, info)
    covers = f"the last {size(holds)} of what is written, "
    covers += f"now about {holds / rate:.0f} s" if rate else "of which there is nothing now"
    finding = await _with_word(redis, covers)
    if rate and holds / rate < LEAST:
        return warning(
            f"{finding.found}. A gap that is longer is not filled",
            f"CONFIG SET repl-backlog-size {int(rate * 60)}, for a minute, and the same in its configuration file",
        )
    return finding


async def _with_word(redis: Inspector, found: str) -> Finding:
    """That, and by which word expirations are in the backlog."""
    word = WORDS.get(await redis.directive("lazyfree-lazy-expire") or "")
    if word is None:
        return warning(
            "lazyfree-lazy-expire cannot be read: CONFIG GET is refused, and no gap is filled", acl_rule(redis.settings)
        )
    if word == "DEL":
        return warning(
            f"{found}; there, an expiration is a DEL, as most deletions are: those in a gap may be announced, and its"
            " record says how many (excess)",
            "CONFIG SET lazyfree-lazy-expire yes, and the same in its configuration file: an expiration is UNLINK then",
        )
    return passed(f"{found}; there, an expiration is an {word}: only a user's own UNLINK looks the same")


async def _rate(redis: Inspector, before: Mapping[str, object]) -> float:
    """Bytes a second that are written."""
    await redis.endpoint.clock.sleep(SAMPLE)
    after = await redis.info("replication") or before
    return max(int(str(after["master_repl_offset"])) - int(str(before["master_repl_offset"])), 0) / SAMPLE


async def _denied(redis: Inspector) -> list[str]:
    """Empty also where Redis does not tell."""
    try:
        return await denied_to_filler(redis)
    except Refused:
        return []
