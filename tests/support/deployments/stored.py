"""What a broker has stored, as the scenes read it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StoredMessage:
    """One message, as the broker holds it."""

    event: dict[str, Any]
    id: str
    """In its header."""
    place: str
    """Its subject, or its topic."""
    stored_ms: float
    """When the broker stored it."""


@dataclass(frozen=True)
class StoredExpiration:
    """One expiration, as the broker holds it."""

    id: str
    key: str
    deadline_ms: int | None
    observed_ms: int
    via: str
    place: str
    """Its subject, or its topic."""
    stored_ms: float
    """When the broker stored it."""

    @classmethod
    def of(cls, message: StoredMessage) -> "StoredExpiration | None":
        """None for what is no expiration."""
        event, data = message.event, message.event["data"]
        if event["type"] != "redis.key.expired":
            return None
        assert message.id == event["id"]
        return cls(
            event["id"],
            data["key"],
            data["deadline_ms"],
            data["observed_ms"],
            data["via"],
            message.place,
            message.stored_ms,
        )
