"""Whether the broker can be reached now: delivery knows, and the source asks, which may leave its work to others."""


class BrokerState:
    """Of one process."""

    def __init__(self) -> None:
        self.up = False
        """Whether there is a session. False until the first one."""
