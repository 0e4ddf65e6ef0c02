"""One epoch: one fence and one subscription, from the gap that it opens with to the reason that it ends with.

One task writes, one script at a time: batches of hints as they come (`protocol/hints.py`), and touches when a deadline
is past, or a part of the ledger is to be walked.

Guarantees: when `run` ends, every hint that was received is handled, or is in `in_doubt`, or was dropped with the
epoch: what was not handled belongs to the gap with which the next epoch opens. The ledger is never changed under an old
fence.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from bridge.clock import Clock
from bridge.endings import Ending
from bridge.redis.epoch.migration import Moves
from bridge.redis.epoch.scan import Scan
from bridge.redis.ledger.outbox import Outbox
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.audit import Audit, Reading
from bridge.redis.protocol.calls import Batch, State, Touch
from bridge.redis.protocol.canary import Canary, Fate
from bridge.redis.protocol.endings import EpochEnded, Missed
from bridge.redis.protocol.gap import Gap
from bridge.redis.protocol.hints import Hints, MarkLostError, OwnKeyLostError, Round
from bridge.redis.protocol.notifications import NEEDED_FLAGS
from bridge.redis.protocol.operations import ClosedGap, gap_closed
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.schedule import RETRY, Schedule
from bridge.redis.wire.errors import Fenced
from bridge.redis.wire.subscription import Subscription
from bridge.telemetry.shard import ShardTelemetry

TOUCH_KEYS = 500
"""Keys touched by one script: a bound on how long it keeps Redis busy."""
STUCK_RETRY = 0.05
"""Seconds before due entries are touched again whose slots are on their way to another node of the cluster."""
MARK_DEADLINE = 5.0
"""Seconds within which a mark has to come back. Else notifications are switched off, whatever the connection says."""


class Epoch:
    """See the module."""

    def __init__(  # noqa: PLR0913 - the parts of one epoch
        self,
        fence: int,
        gap: Gap,
        *,
        node: str,
        ledger: Ledger,
        names: Names,
        subscription: Subscription,
        hints: Hints,
        canary: Canary,
        audit: Audit | None,
        scan: Scan,
        schedule: Schedule,
        outbox: Outbox,
        wake: asyncio.Event,
        clock: Clock,
        telemetry: ShardTelemetry,
        healthy: Callable[[int], None],
        moves: Moves | None = None,
    ) -> None:
        """`moves`: in a cluster."""
        self.gap = gap
        self.in_doubt: Batch | None = None
        """A batch whose reply is awaited or lost: to be sent again until it is answered."""
        self.heard = hints.heard
        """Notifications of expirations that were handled, in all epochs."""
        self._fence = fence
        self._node = node
        self._ledger = ledger
        self._names = names
        self.subscription = subscription
        self._hints = hints
        self._canary = canary
        self._audit = audit
        self.scan = scan
        self._outbox = outbox
        self._wake = wake
        self._clock = clock
        self._telemetry = telemetry
        self._healthy = healthy
        self._schedule = schedule
        self.moves = moves
        self._skip = 0
        """Due entries that cannot be resolved now, in front of all others."""
        self._seq = 0
        self._scripts = 0
        self._touched_at = clock.monotonic()
        self._walking = False
        self._closing = False
        self._counting = False
        self.seen_ms: int | None = None
        """When the last round began that is done, with no gap open: up to there everything is handled."""

    async def run(self) -> NoReturn:
        """Work until the epoch ends. Raises EpochEnded, NotConnected or Refused."""
        try:
            while True:
                await self._idle()
                if batch := self._hints.batch():
                    await self._apply(batch)
                self.heard = self._hints.handled
                self.subscription.took(self._hints.bytes_taken)
                self.scan.took()
                self._hear_canary()
                if finished := self._hints.finished_round():
                    await self._finish(finished)
                if self.moves is not None:
                    await self._take_in(self.moves)
                if self._hints.round is None and self._touch_in() <= 0:
                    await self._touch()
                elif not batch:
                    self._check_subscription()
                    await asyncio.sleep(0)
        except Fenced as error:
            raise EpochEnded(Ending.LEASE_LOST, f"lease lost: {error}") from error
        except MarkLostError as error:
            raise EpochEnded(Ending.MUTE, str(error)) from error
        except OwnKeyLostError as error:
            raise EpochEnded(Ending.OWN_KEY_LOST, str(error)) from error

    # When.

    async def _idle(self) -> None:
        """Return when there is something to do, or may be."""
        self._wake.clear()
        if self.subscription.ended is not None:
            self._hints.scan_no_more()
            return
        if self._hints.round is not None and not self._hints.round.marked and not self._hints.stream:
            self._check_mark()  # a scan alone proves nothing
        if self._hints.waiting:
            return
        if self.moves is not None and self.moves.stray() is not None:
            return
        delay = self._touch_in()
        if self._hints.round is not None:
            delay = self._check_mark()
        if delay > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()

    def _check_mark(self) -> float:
        """Seconds until the mark that is awaited has to be back. Raises EpochEnded where that is over."""
        left = self._touched_at + MARK_DEADLINE - self._clock.monotonic()
        if left <= 0:
            raise EpochEnded(
                Ending.MUTE,
                f"notifications are mute: a mark did not come back within {MARK_DEADLINE:g} s"
                f" (notify-keyspace-events needs {NEEDED_FLAGS})",
            )
        return left

    def _check_subscription(self) -> None:
        """End with the subscription, but only when all that it received is handled."""
        if self.subscription.ended is not None and not self._hints.waiting:
            raise EpochEnded(self.subscription.ending, self.subscription.ended)

    def _touch_in(self) -> float:
        """Seconds until the next touch."""
        delay = self._schedule.heartbeat_in()
        if self._canary.deadline_ms is not None:
            delay = min(delay, self._schedule.until(self._canary.deadline_ms))
        if self._outbox.full():
            return delay
        if self.gap.cursor is not None or self._gap_closable():
            return 0
        due = self._schedule.due_in()
        return delay if due is None else min(delay, due)

    def _gap_closable(self) -> bool:
        """Whether a gap is open, and nothing but a last mark is missing for it to be closed."""
        lowest = self._schedule.lowest_ms
        return (
            self.gap.open
            and self.gap.cursor is None
            and self.scan.complete
            and not self._hints.found
            and not self._hints.moved
            and (self.moves is None or self.moves.settled)
            and (lowest is None or lowest >= self.gap.start_ms)
        )

    # What.

    async def _apply(self, operations: list[bytes]) -> None:
        self._seq += 1
        mark = self._next_mark()
        self.in_doubt = Batch(self._fence, self._seq, self.gap.start_ms, self._hints.handled, mark, operations)
        applied = await self._ledger.apply(self.in_doubt)
        self.in_doubt = None
        if applied is None:
            raise EpochEnded(
                Ending.LEASE_LOST, "lease lost: the ledger says that a batch was applied before it was sent"
            )
        self._hints.applied(mark, applied)
        self.scan.applied(applied)
        self._learn(applied.state)
        if applied.by_notification or applied.by_sweep:
            self._outbox.added()
        self.gap.applied(applied)
        self._telemetry.batch_applied(applied.by_notification, applied.by_sweep)

    async def _touch(self) -> None:
        """Touch what is due or, in turn with it while a gap is open, the next part of the whole ledger."""
        full = self._outbox.full()
        limit = 0 if full else TOUCH_KEYS
        due = self._schedule.due_in()
        overdue = due is not None and due <= 0
        self._walking = not full and self.gap.cursor is not None and not (overdue and self._walking)
        self._closing = self._gap_closable()
        now = self._clock.monotonic()
        count = self._audit is not None and (self._closing or self._audit.due(now))
        order, void = self._canary.order(), self._canary.void
        mark = self._next_mark()
        touched = await self._ledger.touch(
            Touch(
                self._fence,
                mark,
                limit,
                self.heard,
                walk=self.gap.cursor if self._walking else None,
                skip=self._skip,
                seen_ms=self.seen_ms,
                reading=self._kept_reading(),
                count=count,
                canary=order,
                void=void,
            )
        )
        if count and self._audit is not None:
            self._audit.asked(now)
        self._counting = count
        self._canary.touched(order, void, touched.state.now_us // 1000, gone=touched.canary_gone)
        self._touched_at = self._clock.monotonic()
        self._schedule.touched()
        self._learn(touched.state)
        self._telemetry.dead_letters_seen(touched.dead)
        self._hints.touched(mark, touched, limit)
        if self._walking:
            self.gap.walked(touched.cursor)
        if self.moves is not None:
            self.moves.waiting(touched.moved)

    async def _take_in(self, moves: Moves) -> None:
        """What came with slots that moved here."""
        moves.took()
        number = moves.stray()
        if number is not None:
            self._seq += 1
            moves.adopted(number, await self._ledger.adopt(self._fence, self._seq, number))
            self._outbox.added()

    async def _finish(self, finished: Round) -> None:
        """The mark of a touch is back, and all before it is handled."""
        lowest = self._schedule.lowest_ms
        if not self._walking:
            self._skip = 0 if finished.complete else self._skip + finished.stuck
            if finished.complete and lowest is not None and lowest < finished.redis_ms:
                self._schedule.hold_back(STUCK_RETRY if finished.stuck else RETRY)
        if not self._canary.marked():
            raise EpochEnded(
                Ending.MUTE,
                "notifications are mute: a key of the bridge's own expired, and Redis did not say so"
                f" (notify-keyspace-events needs {NEEDED_FLAGS})",
            )
        self._read_audit(finished)
        if self._closing and self.gap.open:
            await self._close_gap(finished)
        if not self.gap.open:
            self.seen_ms = finished.redis_ms
            self._healthy(finished.redis_ms)
        self._telemetry.mark_returned(self._node)

    def _hear_canary(self) -> None:
        canary = self._canary
        deadline_ms = canary.deadline_ms
        if deadline_ms is not None and canary.fate is not Fate.OUT:
            canary.deadline_ms = None
            if canary.fate is Fate.HEARD:
                self._telemetry.canary_heard(max(self._schedule.redis_ms() - deadline_ms, 0) / 1000)

    def _read_audit(self, finished: Round) -> None:
        if self._audit is None or not self._counting:
            return
        missed = self._audit.read(Reading.of(finished.counters, finished.heard, finished.void))
        if missed and not self.gap.open:
            raise Missed(missed)

    async def _close_gap(self, finished: Round) -> None:
        """All of it is reconciled. Its record goes into the outbox in the step that makes an end of it."""
        gap, audit = self.gap, self._audit
        missed = audit.in_gap() if audit is not None else None
        # Closed when the touch was made, not now: should this have to be sent again, the stream may be lost by then.
        record = ClosedGap(self._node, gap.opened_ms, finished.redis_ms, gap.cause, missed, self._kept_reading())
        await self._apply(list(gap_closed(record)))
        gap.close()
        if audit is not None:
            audit.closed()
        self._outbox.added()
        self._telemetry.gap_closed(gap.recovered, gap.ambiguous, missed)

    def _kept_reading(self) -> str:
        reading = self._audit.last if self._audit is not None else None
        return "" if reading is None else str(reading)

    def _learn(self, state: State) -> None:
        self._schedule.learn(state)
        self._outbox.depth = state.depth
        self._telemetry.ledger_seen(state.size, state.depth)

    def _next_mark(self) -> bytes:
        self._scripts += 1
        return self._names.mark(self._fence, self._scripts)
