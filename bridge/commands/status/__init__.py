"""`expiry-bridge status`: a look at the ledger, the broker and the bridge."""

from bridge.commands.status.command import status

__all__ = ["status"]
