"""Whether the bridge that works here has set alike what all bridges of a namespace must set alike."""

from bridge.commands.check.findings import Finding, passed, warning
from bridge.errors import NotConnected, Refused
from bridge.redis.admin.inspector import Inspector
from bridge.redis.admin.ledger_state import differing, read_state


async def check_settings(redis: Inspector) -> Finding | None:
    """None: no bridge has worked here, or only an older one, which leaves no fingerprint; or it cannot be read now.

    Why it cannot, other checks say: they read the same keys.
    """
    try:
        state = await read_state(redis)
    except (NotConnected, Refused):
        return None
    if others := differing(state, redis.settings):
        return warning(
            "; ".join(f"{bridge} has others: {differences}" for bridge, differences in others.items()),
            "unless a change is being rolled out: set them alike in all bridges, or BRIDGE_NAMESPACE otherwise in one",
        )
    if any(lease is not None and lease.fingerprint for lease in state.leases):
        return passed("those of the bridge that works here, or did last, where all must agree")
    return None
