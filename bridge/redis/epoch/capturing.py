"""Captures the values of keys that are about to expire (`protocol/captures.py` decides which, and what is proven).

It works between the batches of the epoch's own task, so captures and claims are in one order. The proof needs a
connection that Redis tracks, and the claims are sent on it as well (`tracked.py`). When that connection is lost,
nothing that was captured on it is proven any longer, and everything is captured anew.
"""

from bridge.errors import NotConnected, Refused
from bridge.redis.epoch.attempt import Attempt
from bridge.redis.epoch.tracked import Tracked
from bridge.redis.epoch.writer import Writer
from bridge.redis.protocol.calls import Capture
from bridge.redis.protocol.captures import UNREAD, Captures, Entry, Former, Wanted
from bridge.redis.protocol.patterns import matcher
from bridge.redis.wire.tracking import has_fields, said_of_itself


def captures_of(attempt: Attempt) -> Captures | None:
    """What the epoch captures; None if nothing."""
    runtime, lease = attempt.shard.runtime, attempt.lease
    patterns = runtime.settings.values
    if patterns is None:
        return None
    wanted = Wanted(matcher(patterns), round(runtime.settings.values_lead * 1000))
    now_ms = attempt.shard.redis_clock.now_ms()
    return Captures(wanted, runtime.limits.epoch, Former(lease.values, lease.value_bytes), now_ms)


class Capturing:
    """That of one epoch."""

    def __init__(self, attempt: Attempt, captures: Captures, writer: Writer) -> None:
        shard = attempt.shard
        runtime, settings = shard.runtime, shard.runtime.settings
        self._attempt = attempt
        self._captures = captures
        self._writer = writer
        self._tracked: Tracked | None = None
        """None before the server is known."""
        self._fields = False
        self._redis_clock = shard.redis_clock
        self._clock = runtime.clock
        self._limits = runtime.limits.epoch
        self._telemetry = shard.telemetry
        self._most = settings.values_max_bytes
        self._limit = settings.values_limit
        self._look_at = self._not_before = self._clock.monotonic()
        self._busy_since: float | None = None
        """Where the last capture left more to do: when it was done."""

    @property
    def listed_ms(self) -> int:
        """Up to which deadline the ledger is listed. It may have more entries of that deadline itself."""
        return self._captures.cursor.deadline_ms

    def due_in(self) -> float:
        """Seconds until there is something to do."""
        if (pause := self._not_before - self._clock.monotonic()) > 0:
            return pause
        look = max(self._look_at - self._clock.monotonic(), 0.0)
        due_ms = self._captures.due_in_ms(self._redis_clock.now_ms())
        return look if due_ms is None else min(look, due_ms / 1000)

    async def step(self) -> None:
        """List what is next, or capture some values, in one script. Raises Fenced, NotConnected or Refused."""
        if self._attempt.ears.subscription.ended is not None or self.due_in() > 0:
            return
        try:
            await self._go_on(await self._open())
        except Refused as error:  # expirations are announced anyway
            self._captures.lost()
            self._busy_since = None  # the pause that follows is no part of what a capture takes
            self._not_before = self._clock.monotonic() + self._limits.capture_refused
            self._telemetry.values_doubted(str(error))

    def repaired(self, count: int) -> None:
        """A script has found something other in the place of the values: those that were held are gone."""
        if count:
            self._telemetry.ledger_repaired(count)
            self._captures.lost()

    def close(self) -> None:
        """Give the connection back."""
        if self._tracked is not None:
            self._tracked.close()

    async def _go_on(self, tracked: Tracked) -> None:
        if self._captures.idle:
            await self._list()
        most = self._limits.capture_declared if tracked.declare else self._limits.capture_keys
        if asked := self._captures.take(most, self._redis_clock.now_ms()):
            await self._capture(asked, tracked)

    async def _open(self) -> Tracked:
        if self._tracked is None:
            server = said_of_itself(await self._attempt.ledger.server())
            self._fields = has_fields(server)
            self._tracked = Tracked(self._attempt, server, self._writer)
        if await self._tracked.open():
            self._captures.lost()
        return self._tracked

    async def _list(self) -> None:
        """Read which deadlines of the ledger are next, and look for crowds."""
        captures, now_ms = self._captures, self._redis_clock.now_ms()
        look = self._clock.monotonic() >= self._look_at
        if look:
            self._look_at = self._clock.monotonic() + self._limits.crowd_look
            captures.prune(now_ms)
        if captures.full:
            return
        bounds = captures.crowds.bounds(now_ms) if look else ()
        up_to_ms, cursor = captures.up_to_ms(now_ms), captures.cursor
        found = await self._attempt.ledger.upcoming(
            cursor.deadline_ms, cursor.key, up_to_ms, self._limits.listed_values, bounds
        )
        captures.listed(found.entries, up_to_ms, found.following_ms)
        if look:
            captures.crowds.counted(found.counts)

    async def _capture(self, asked: list[Entry], tracked: Tracked) -> None:
        capture = Capture(
            self._writer.fence,
            asked,
            self._most,
            self._limits.value_bytes,
            self._limit,
            fields=self._fields,
            tracked=tracked.ledger is not None,
            declare=tracked.declare,
        )
        began, self._busy_since = self._busy_since or self._clock.monotonic(), None
        try:
            captured = await (tracked.ledger or self._attempt.ledger).capture(capture)
        except NotConnected:
            self._captures.lost()
            if not capture.tracked:
                raise
            self._writer.tracked = None
            return
        except Refused as error:
            if not capture.declare:
                raise
            self._captures.lost()
            tracked.refuse(str(error))  # it may read the keys, but not declare them
            return
        self.repaired(captured.repaired)
        self._captures.captured(asked, captured.sizes, captured.changing, tracked=capture.tracked)
        done = self._clock.monotonic()
        self._captures.crowds.took(len(captured.sizes), (done - began) * 1000)
        if self._captures.due_in_ms(self._redis_clock.now_ms()) == 0:
            self._busy_since = done  # what the epoch does until the next one is part of what that one takes
        read = sum(size != UNREAD for size in captured.sizes)
        self._telemetry.values_captured(read, full=captured.full, provable=capture.tracked)
        self._telemetry.values_seen(captured.values, captured.value_bytes)
