"""`expiry-bridge check`: a doctor for Redis and the broker."""

from bridge.commands.check.command import check

__all__ = ["check"]
