"""Whether the bridge that works here has set alike what all bridges of a namespace must set alike."""

from bridge.commands.check.findings import Finding, failed_with, passed, warning
from bridge.errors import NotConnected, Refused
from bridge.redis.admin.inspector import Inspector
from bridge.redis.admin.ledger_state import differing, read_state
from bridge.redis.wire.server import count_differs


async def check_settings(redis: Inspector) -> Finding | None:
    """None: no bridge has worked here, or only an older one, which leaves no fingerprint; or it cannot be read now.

    Why it cannot, other checks say: they read the same keys.
    """
    try:
        state = await read_state(redis)
    except (NotConnected, Refused):
        return None
    wanted, known = redis.settings.shards, any(lease is not None for lease in state.leases)
    if redis.topology is None and known and len(state.leases) != wanted:  # a bridge with these settings would not start
        return failed_with(count_differs(redis.endpoint, len(state.leases), wanted), "")
    if others := differing(state, redis.settings):
        return warning(
            "; ".join(f"{bridge} has others: {differences}" for bridge, differences in others.items()),
            "set them alike in all bridges, or give one of them a BRIDGE_NAMESPACE of its own; while a change is being"
            " rolled out, there is nothing to do",
        )
    if any(lease is not None and lease.fingerprint for lease in state.leases):
        return passed("they match those of the present bridge, or of the last one, wherever all must agree")
    return None
