"""Messages that the broker does not accept, although it may accept others: each waits separately, and is tried again.

Guarantees: a stuck message delays only messages of its own key. It is tried again after its own back-off, of up to
`stuck_retry_most` seconds. Messages that got stuck while the broker accepted nothing are tried again at once when it
accepts something. A message is given up only when it was stuck for `BRIDGE_STUCK_SECONDS` *in which others were acked*.
A pause between acks counts for `flow_pause` seconds at most, so an outage of any length gives up nothing. Room is
bounded: what finds none is set aside (`aside.py`). A restart of the process starts the time anew, and so does taking up
what was set aside.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bridge.backoff import JITTER
from bridge.contracts import Message
from bridge.delivery.context import Context
from bridge.delivery.parcels import Parcel

NEVER = float("inf")
ROUNDING = 8
"""Retry times are rounded up by this fraction of the delay, so that many messages go together."""


@dataclass(slots=True)
class Stuck:
    """One message."""

    parcel: Parcel
    reason: str
    since: float
    """Monotonic seconds."""
    flowed: float
    """The flow at that time."""
    tries: int = 0
    due: float = NEVER
    """When to try again; never while it is on its way."""


@dataclass(slots=True)
class Channel:
    """A subject or topic on which messages are stuck."""

    since: float
    reason: str
    count: int = 0


class StuckRoom:
    """All of them, by the ids of the messages."""

    def __init__(self, context: Context, channel_of: Callable[[Message], str]) -> None:
        self._clock = context.clock
        self._limits = context.limits
        self._channel_of = channel_of
        self._rng = JITTER
        self._stuck: dict[str, Stuck] = {}
        self._due: list[tuple[float, int, str]] = []
        self._counter = 0
        self.bytes = 0
        """Of their bodies."""
        self.lanes: set[bytes] = set()
        """Of these messages. Where a key's messages go one by one, each has one message here."""
        self.channels: dict[str, Channel] = {}
        self.changed = asyncio.Event()
        """Something may be due earlier than before."""
        self._flow = 0.0
        self._last_ack = NEVER

    def __len__(self) -> int:
        """How many are stuck."""
        return len(self._stuck)

    def flows(self) -> None:
        """The broker has acked something."""
        now, before = self._clock.monotonic(), self._last_ack
        self._flow += min(max(now - before, 0.0), self._limits.flow_pause)
        self._last_ack = now
        if self._due and (before == NEVER or now - before > self._limits.watch):
            self._hurry(now, 0.0 if before == NEVER else before)

    def _hurry(self, now: float, since: float) -> None:
        """An outage that began at `since` has ended. Messages that got stuck in it are tried again at once.

        Messages that got stuck before it have other reasons.
        """
        for id_, stuck in reversed(self._stuck.items()):
            if stuck.since < since:
                break
            if stuck.due != NEVER:
                stuck.tries = 0
                self._try_at(now, stuck, id_)

    def refused(self, parcel: Parcel, reason: str) -> float:
        """The broker refused it. Returns in how many seconds it will be tried again."""
        stuck = self.late(parcel, reason)
        limits = self._limits
        delay = min(limits.stuck_retry_first * 2.0**stuck.tries, limits.stuck_retry_most) * self._rng.uniform(0.5, 1)
        stuck.tries = min(stuck.tries + 1, 30)
        step = delay / ROUNDING
        self._try_at(((self._clock.monotonic() + delay) // step + 1) * step, stuck, parcel.message.id)
        return delay

    def _try_at(self, due: float, stuck: Stuck, id_: str) -> None:
        stuck.due = due
        self._counter += 1
        heapq.heappush(self._due, (due, self._counter, id_))
        self.changed.set()

    def late(self, parcel: Parcel, reason: str) -> Stuck:
        """It has been on its way without an answer for long."""
        id_ = parcel.message.id
        stuck = self._stuck.get(id_)
        if stuck is None:
            stuck = self._stuck[id_] = Stuck(parcel, reason, self._clock.monotonic(), self._flow)
            self.bytes += len(parcel.message.body)
            self.lanes.add(parcel.lane)
            self._count(self._channel_of(parcel.message), reason)
        stuck.reason = reason
        return stuck

    def done(self, messages: Iterable[Message]) -> None:
        """These are not stuck, or no longer."""
        for message in messages:
            stuck = self._stuck.pop(message.id, None)
            if stuck is None:
                continue
            self.bytes -= len(stuck.parcel.message.body)
            self.lanes.discard(stuck.parcel.lane)
            self.taken_up(self._channel_of(stuck.parcel.message))

    def holds(self, message: Message) -> bool:
        """Whether it is one of them."""
        return message.id in self._stuck

    def set_aside(self, message: Message, reason: str | None) -> str:
        """Count one for which there is no room here. Returns its channel. `reason`: why it was refused, if it was."""
        name = self._channel_of(message)
        self._count(name, reason)
        return name

    def taken_up(self, channel: str) -> None:
        """One that was stuck on this channel is not, or is tried again."""
        self.channels[channel].count -= 1
        if not self.channels[channel].count:
            del self.channels[channel]

    def _count(self, name: str, reason: str | None) -> None:
        channel = self.channels.setdefault(name, Channel(self._clock.monotonic(), reason or ""))
        channel.count += 1
        channel.reason = channel.reason if reason is None else reason

    def until_due(self) -> float | None:
        """Seconds until a message has to be tried again; None if there is none."""
        return max(self._due[0][0] - self._clock.monotonic(), 0.0) if self._due else None

    def take_due(self, most: int) -> list[Parcel]:
        """At most `most` messages that have to be tried again now. From then on they are on their way."""
        now, parcels = self._clock.monotonic(), list[Parcel]()
        while self._due and self._due[0][0] <= now and len(parcels) < most:
            due, _, id_ = heapq.heappop(self._due)
            stuck = self._stuck.get(id_)
            if stuck is not None and stuck.due == due:
                stuck.due = NEVER
                parcels.append(stuck.parcel)
        return parcels

    def take_given_up(self, seconds: float, most: int) -> list[Stuck]:
        """Remove and return at most `most` messages that were stuck for that long while others were acked."""
        now, found = self._clock.monotonic(), list[Stuck]()
        if seconds:
            for stuck in self._stuck.values():  # in the order of `since`
                if now - stuck.since < seconds or len(found) == most:
                    break
                if self._flow - stuck.flowed >= seconds:
                    found.append(stuck)
        self.done([stuck.parcel.message for stuck in found])
        return found
