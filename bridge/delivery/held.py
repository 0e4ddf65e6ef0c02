"""Messages that are held back: stuck ones and those behind them, in memory while there is room, else in the outbox."""

from collections.abc import Callable

from bridge.contracts import Message
from bridge.delivery.aside import Aside
from bridge.delivery.context import Context
from bridge.delivery.keys import KeyOrder
from bridge.delivery.parcels import Parcel, Progress
from bridge.delivery.stuck import StuckRoom


class Held:
    """The room for them. What is refused while it is full is set aside, with all that waits behind it."""

    def __init__(self, context: Context, channel_of: Callable[[Message], str]) -> None:
        self._limits = context.limits
        self.order = KeyOrder()
        self.stuck = StuckRoom(context, channel_of)
        self.aside = Aside(context.limits)

    def full(self, more: int = 0, more_bytes: int = 0) -> bool:
        """Whether memory would have no room left with that many more messages and bytes."""
        count = len(self.stuck) + self.order.waiting + more
        size = self.stuck.bytes + self.order.waiting_bytes + more_bytes
        return count >= self._limits.stuck or size >= self._limits.stuck_bytes

    @property
    def overflowing(self) -> bool:
        """Whether no more may be read: nothing more may be set aside, or memory holds too much.

        What has no answer yet counts for memory only: it may still be acked, so it is not set aside.
        """
        return self.aside.full or self.full(-self._limits.in_flight, -self._limits.in_flight_bytes)

    @property
    def roomy(self) -> bool:
        """Whether much of what was set aside would find room."""
        return not self.full(self._limits.stuck // 2, self._limits.stuck_bytes // 2)

    def refused(self, parcel: Parcel, reason: str) -> float | None:
        """The broker refused it. Returns in how many seconds it is tried again; None: it was set aside."""
        if self.stuck.holds(parcel.message) or not self.full():
            return self.stuck.refused(parcel, reason)
        for one in (parcel, *self.order.leave(parcel.lane)):
            self._set_aside(one, reason)
        return None

    def may_go(self, parcel: Parcel) -> bool:
        """Whether no other message of its key has to go first. If one has, it waits, here or in the outbox."""
        if self.aside.holds(parcel.lane):
            self._set_aside(parcel, None)
        elif parcel.lane not in self.order.busy:
            return True
        elif self.full() and parcel.lane in self.stuck.lanes:
            self._set_aside(parcel, None)
        else:
            self.order.wait(parcel)
        return False

    def take_up(self, progress: Progress) -> list[int]:
        """Take up the first entry of a shard: the positions of its messages that were set aside."""
        channels = self.aside.take(progress)
        for channel in channels.values():
            self.stuck.taken_up(channel)
        return list(channels)

    def _set_aside(self, parcel: Parcel, reason: str | None) -> None:
        self.aside.add(parcel, self.stuck.set_aside(parcel.message, reason))
