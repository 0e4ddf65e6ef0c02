"""What the sentinels must be for a failover that loses nothing. Each check has nothing to say where there are none."""

from collections.abc import Sequence

from bridge.commands.check.findings import Finding, passed, warning
from bridge.redis.admin.inspector import Inspector
from bridge.redis.wire.sentinel import Answer, newest

FEWEST = 3
"""Sentinels of which one may be gone, and the others are still a majority."""
REPLICAS = "min-replicas-to-write"


async def check_sentinels(redis: Inspector) -> Finding | None:
    """How many of them answer, whether they agree, and whether they could do a failover."""
    if redis.sentinels is None:
        return None
    replies = await redis.sentinels.ask()
    answers = [reply for reply in replies if isinstance(reply, Answer)]
    silent = [str(reply) for reply in replies if not isinstance(reply, Answer)]
    if not answers:  # they have gone since we connected
        return warning("none answers now", "run the check again")
    host, port = primary = newest(answers)
    agreeing = sum(answer.address == primary for answer in answers)
    found = f"{agreeing} of {len(replies)} name {host}:{port} as the primary of {redis.sentinels.service}"
    if silent:
        return warning(f"{found}; {silent[0]}", "bring it back, or take it out of BRIDGE_REDIS_URL")
    if agreeing < len(replies):
        return warning(f"{found}, the others another one", "run the check again when the failover is over")
    return _able(found, answers)


def _able(found: str, answers: Sequence[Answer]) -> Finding:
    quorum, known = max(answer.quorum for answer in answers), max(answer.others for answer in answers) + 1
    found = f"{found}; quorum {quorum} of {known}"
    if any("_down" in flag for answer in answers for flag in answer.flags):
        return warning(f"{found}; they consider it down", "look at their log: can they reach it, and log in?")
    if not max(answer.replicas for answer in answers):
        return warning(f"{found}; there is no replica to fail over to", "add a replica")
    if known < FEWEST or quorum > known // 2 + 1:
        return warning(
            f"{found}: if one sentinel is lost, there may be no failover",
            f"run {FEWEST} sentinels or more, with a quorum of at most a majority (SENTINEL SET … quorum)",
        )
    return passed(found)


async def check_cut_off(redis: Inspector) -> Finding | None:
    """Whether a primary that is cut off from its replicas goes on taking writes."""
    if redis.sentinels is None:
        return None
    wanted = await redis.directive(REPLICAS)
    if wanted is None:
        return warning(
            f"{REPLICAS} cannot be read: CONFIG GET is refused",
            "make sure of it: it should be 1 or more, on every node",
        )
    if wanted == "0":
        return warning(
            f"{REPLICAS} 0: a primary that is cut off keeps accepting writes, which the failover loses",
            f"CONFIG SET {REPLICAS} 1 (and min-replicas-max-lag 10), on every node and in their configuration files",
        )
    return passed(f"{REPLICAS} {wanted}: a primary that is cut off soon refuses writes")
