"""What is on its way from the outbox to the broker: entries, their messages, and the loads that they are sent in."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bridge.contracts import DeadLetter, Entry, Message, Run, Settlement
from bridge.expiration import Event, GapRecord


class Progress:
    """An outbox entry under way. It knows how many of its messages are open, but not its events."""

    __slots__ = ("claimed_ms", "dead", "messages", "open", "origin", "settlement", "size")

    def __init__(self, entry: Entry) -> None:
        self.dead: list[DeadLetter] = []
        self.settlement = Settlement.of(entry, self.dead)
        self.origin = entry.origin
        self.messages = len(entry.events)
        self.open = self.messages
        """Messages that are neither acked nor dead letters."""
        self.size = 0
        """Bytes of all bodies."""
        first = entry.events[0]
        self.claimed_ms = first.closed_ms if isinstance(first, GapRecord) else first.observed_ms

    @property
    def place(self) -> tuple[int, bytes]:
        """Shard and id."""
        return self.settlement.shard, self.settlement.id


class Parcel(NamedTuple):
    """One message on its way."""

    message: Message
    event: Event
    """What it reports."""
    progress: Progress
    position: int
    """Of the event in its entry."""

    @property
    def lane(self) -> bytes:
        """What has to be in order: its key; if a field expired, that field."""
        return self.message.field_lane or self.message.key


class Stretch(NamedTuple):
    """Messages of one entry that stand side by side in a load."""

    progress: Progress
    first: int
    length: int


@dataclass(slots=True)
class Load:
    """Messages that are sent together."""

    messages: list[Message] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    """What each message reports."""
    stretches: list[Stretch] = field(default_factory=list)
    """Where they come from."""
    keys: set[bytes] = field(default_factory=set)
    size: int = 0
    """Bytes of the bodies."""

    @classmethod
    def of(cls, parcels: Sequence[Parcel]) -> "Load":
        """These messages."""
        load = cls()
        for parcel in parcels:
            load.add(parcel)
        return load

    def add(self, parcel: Parcel) -> None:
        """One more message."""
        message, event, progress, position = parcel
        self.messages.append(message)
        self.events.append(event)
        self.keys.add(parcel.lane)
        self.size += len(message.body)
        last = self.stretches[-1] if self.stretches else None
        if last is not None and last.progress is progress and last.first + last.length == position:
            self.stretches[-1] = Stretch(progress, last.first, last.length + 1)
        else:
            self.stretches.append(Stretch(progress, position, 1))

    def extend(
        self, progress: Progress, messages: Sequence[Message], events: Sequence[Event], keys: set[bytes]
    ) -> None:
        """All messages of an entry."""
        self.messages += messages
        self.events += events
        self.keys |= keys
        self.size += progress.size
        self.stretches.append(Stretch(progress, 0, len(messages)))

    @property
    def runs(self) -> list[Run]:
        """Where they come from, in the form for the sink."""
        return [
            Run(*progress.place, first, length, progress.origin, progress.claimed_ms)
            for progress, first, length in self.stretches
        ]

    def parcels(self) -> list[Parcel]:
        """Message by message."""
        places = [(progress, first + n) for progress, first, length in self.stretches for n in range(length)]
        return [
            Parcel(message, event, *place)
            for message, event, place in zip(self.messages, self.events, places, strict=True)
        ]
