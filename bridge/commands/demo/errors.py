"""What ends the demo early."""

from bridge.errors import BridgeError


class DemoError(BridgeError):
    """The demo cannot go on; the message may have several lines."""
