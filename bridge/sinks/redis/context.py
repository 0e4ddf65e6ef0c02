"""What the sessions of the Redis sink share: the settings, and what was refused and is not appended yet."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from bridge.clock import Clock
from bridge.limits import WireLimits
from bridge.settings import Settings
from bridge.sinks.observer import SinkEvents
from bridge.sinks.redis.entries import Place
from bridge.sinks.redis.keys import StreamTemplate


@dataclass(frozen=True, slots=True)
class Context:
    """The same for all sessions.

    A message that was refused, and is still missing when later messages of its line come, was given up. The script
    learns that, so that the place it stores is no ack for that message.
    """

    settings: Settings
    ledger: bytes
    """Its name."""
    streams: StreamTemplate
    clock: Clock
    limits: WireLimits
    events: SinkEvents
    _refused: dict[bytes, set[Place]] = field(default_factory=dict)
    """By stream."""

    def refused(self, stream: bytes, places: Iterable[Place]) -> None:
        """These were not appended."""
        self._refused.setdefault(stream, set()).update(places)

    def passed_over(self, stream: bytes, places: Sequence[Place]) -> Sequence[Place]:
        """The refused places of the same lines that are before `places`, and not among them."""
        refused = self._refused.get(stream)
        if not refused:
            return ()
        last = dict[bytes, tuple[int, int]]()
        for line, number, index in places:
            last[line] = max(last.get(line, (number, index)), (number, index))
        return sorted(
            (line, number, index)
            for line, number, index in refused.difference(places)
            if line in last and (number, index) < last[line]
        )

    def done(self, stream: bytes, appended: Collection[Place], passed: Collection[Place]) -> None:
        """These are in the stream, or remembered as passed over."""
        refused = self._refused.get(stream)
        if refused:
            refused.difference_update(appended, passed)
            if not refused:
                del self._refused[stream]
