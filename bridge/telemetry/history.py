"""What has happened of late, and who has which shard: what a gauge or a counter cannot say. For the status page.

Bounded: the last few of each kind. Only `Telemetry` and `ShardTelemetry` add to it. Holds no key.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from bridge.clock import Clock

GAPS, TAKEOVERS = 50, 20
TakeoverKind = Literal["hot", "filled", "cold"]
"""Without a gap; with one that the replication backlog has filled; with one that stays open until it is reconciled."""


@dataclass(slots=True)
class PastGap:
    """A gap, open or closed. Times are Redis's, in ms."""

    shard: int
    cause: str
    opened_ms: int
    until_ms: int
    """When the subscription was confirmed: what expired before may have been missed."""
    began: float
    """Monotonic seconds, when reconciling began."""
    closed_ms: int | None = None
    recovered: int = 0
    ambiguous: int = 0
    missed: int | None = None


@dataclass(frozen=True, slots=True)
class Takeover:
    """A lease taken."""

    shard: int
    at: float
    """Monotonic seconds."""
    kind: TakeoverKind
    silent_ms: int | None


@dataclass(frozen=True, slots=True)
class StuckChannel:
    """Where messages are stuck."""

    on: str
    """A subject or topic, without any part of a key."""
    since: float
    """Monotonic seconds."""
    reason: str


@dataclass(slots=True)
class Place:
    """One shard, as this bridge sees it."""

    node: str | None = None
    """The server that it is on."""
    holder: str | None = None
    """The other bridge that has the lease, as far as is known."""
    standbys: int | None = None
    """While this bridge has it: how many others could take over without a gap, as far as is known."""
    doubt: str | None = None
    """Why values are not read, or not proven, as far as is known."""
    field_deadline_ms: int | None = None
    """The first deadline of a field; None if there is none, or another bridge has the lease."""


@dataclass(slots=True)
class History:
    """Of one process."""

    clock: Clock
    gaps: deque[PastGap] = field(default_factory=lambda: deque(maxlen=GAPS))
    takeovers: deque[Takeover] = field(default_factory=lambda: deque(maxlen=TAKEOVERS))
    stuck: dict[str, StuckChannel] = field(default_factory=dict)
    """By subject or topic."""
    places: dict[int, Place] = field(default_factory=dict)
    """By shard."""

    def gap_opened(self, shard: int, cause: str, opened_ms: int, until_ms: int) -> None:
        """One of the shard that is open yet was left unfinished, by an epoch that has ended: this one covers it."""
        for gap in [gap for gap in self.gaps if gap.shard == shard and gap.closed_ms is None]:
            self.gaps.remove(gap)
        self.gaps.append(PastGap(shard, cause, opened_ms, until_ms, self.clock.monotonic()))

    def gap_closed(self, shard: int, recovered: int, ambiguous: int, missed: int | None) -> None:
        """The open one of the shard, if it is still among the last."""
        for gap in self.gaps:
            if gap.shard == shard and gap.closed_ms is None:
                gap.closed_ms = gap.until_ms + round((self.clock.monotonic() - gap.began) * 1000)
                gap.recovered, gap.ambiguous, gap.missed = recovered, ambiguous, missed

    def taken_over(self, shard: int, kind: TakeoverKind, silent_ms: int | None) -> None:
        """See `ShardTelemetry.lease_taken_over`."""
        self.takeovers.append(Takeover(shard, self.clock.monotonic(), kind, silent_ms))

    def messages_stuck(self, on: str, reason: str, seconds: float) -> None:
        """See `Telemetry.messages_stuck`."""
        self.stuck[on] = StuckChannel(on, self.clock.monotonic() - seconds, reason)
