"""Reports of stuck messages: an event when they get stuck, and one when they no longer are; `/readyz` in between."""

from bridge.delivery.context import Context
from bridge.delivery.stuck import StuckRoom


class StuckReport:
    """Of one `StuckRoom`. Names subjects and topics only as `Sink.channel` does: without any part of a key."""

    def __init__(self, room: StuckRoom, context: Context) -> None:
        self._room = room
        self._clock = context.clock
        self._after = context.limits.late
        self._telemetry = context.telemetry
        self._said: dict[str, None] = {}

    def update(self) -> None:
        """Report what has changed."""
        now, count, oldest, reasons = self._clock.monotonic(), 0, 0.0, list[str]()
        channels = {name: about for name, about in self._room.channels.items() if now - about.since >= self._after}
        for name, about in channels.items():
            age = now - about.since
            count += about.count
            oldest = max(oldest, age)
            reasons.append(f"{about.count} on {name} for {age:.0f} s ({about.reason})")
            if name not in self._said:
                self._telemetry.messages_stuck(name, about.count, about.reason, age)
        for name in self._said:
            if name not in channels:
                self._telemetry.messages_unstuck(name)
        self._said = dict.fromkeys(channels)
        self._telemetry.stuck_counted(count, oldest, f"messages are stuck: {'; '.join(reasons)}" if reasons else "")
