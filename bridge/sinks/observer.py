"""What a sink reports besides the results of its calls. Telemetry implements it; sinks never log or count."""

from typing import Protocol


class SinkEvents(Protocol):
    """Called from the event loop; must not block or raise. No text holds a user key or a secret."""

    def stream_warned(self, text: str) -> None:
        """The stream or topic works, but not as well as it should: `text` says why, and how to fix it."""

    def resent(self, count: int) -> None:
        """`count` messages were sent again, because their acks did not come in time."""
