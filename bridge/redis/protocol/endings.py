"""How an epoch ends."""

from bridge.endings import Ending
from bridge.errors import BridgeError


class EpochEnded(BridgeError):
    """The epoch is over; the message is the reason, in words for the operator, and the cause of the next gap."""

    def __init__(self, ending: Ending, reason: str) -> None:
        super().__init__(reason)
        self.ending = ending


class Missed(EpochEnded):
    """The audit says that Redis expired more keys than it notified."""

    def __init__(self, count: int) -> None:
        super().__init__(Ending.MISSED, f"{count} expirations were not notified: Redis counts more than it notified")


DEAF = frozenset({Ending.CONNECTION_LOST, Ending.SILENT, Ending.BACKLOG_FULL})
"""Ends after which the stream continues, but not here: a standby has heard what this bridge has not."""
UNTRUSTWORTHY = frozenset({Ending.MUTE, Ending.MISSED, Ending.FLAGS_CHANGED, Ending.OWN_KEY_LOST})
"""Ends after which the next epoch must not go on with the same stream: something may be missing from it."""
