"""What follows the notifications besides the deadline ledger, if the settings ask for it."""

from dataclasses import dataclass

from bridge.redis.protocol.captures import Captures
from bridge.redis.protocol.fields import FieldHints


@dataclass(frozen=True, slots=True)
class Followers:
    """Those of one epoch."""

    fields: FieldHints | None = None
    """Notifications of hashes, where their fields are bridged."""
    captures: Captures | None = None
    """Which values are held, where values are wanted."""
