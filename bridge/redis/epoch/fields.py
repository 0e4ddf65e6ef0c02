"""Fields of hashes, in one epoch: which hashes are read when, and what is searched for.

The epoch's own task calls `step`. It sends one script, which reads some of the hashes that were notified, or whose
first field is due. A second task goes through all hashes: first those of the ledger, because a notification may have
been missed, then those of the keyspace. Every epoch begins with that, because it does not know which hints the former
epoch handled. A third task finds out which of the hashes that are too large have fields with deadlines. That may take
long.
"""

import asyncio
from collections.abc import Iterable
from typing import NoReturn

from bridge.endings import Ending
from bridge.redis.epoch.attempt import Attempt
from bridge.redis.epoch.writer import Writer
from bridge.redis.ledger.fields import FieldLedger
from bridge.redis.protocol.endings import EpochEnded
from bridge.redis.protocol.field_calls import Look, Looked
from bridge.redis.protocol.fields import TIMED, FieldHints
from bridge.redis.protocol.marks import Marks
from bridge.redis.protocol.patterns import scan_match
from bridge.redis.wire.errors import Fenced


class Fields:
    """Those of one epoch."""

    def __init__(self, attempt: Attempt, writer: Writer, marks: Marks, hints: FieldHints) -> None:
        shard = attempt.shard
        runtime = shard.runtime
        self._hints = hints
        self._writer = writer
        self._marks = marks
        self._gap = attempt.gap
        self._limits = runtime.limits.fields
        self._ledger = FieldLedger(attempt.ledger.commands, shard.names, self._limits)
        self._match, _ = scan_match(runtime.settings.bridged_fields(), runtime.settings.shards)
        self._interval = runtime.settings.scan_interval or None
        self._redis_clock, self._clock = shard.redis_clock, runtime.clock
        self._outbox, self._telemetry = shard.outbox, shard.telemetry
        self._wake = attempt.ears.wake
        self._lowest_ms: int | None = 0
        """The first deadline of any field; 0: not known yet."""
        self._hashes = 0
        """How many are in the ledger, as last heard."""
        self._not_before = 0.0
        self._listed, self._through = False, False
        """Whether this epoch has handed over all hashes to be read; and whether `_owed` holds them."""
        self._dropped = False
        """Whether some of the hashes handed over were forgotten meanwhile, because too many waited."""
        self._owed = set[bytes]()
        """Those of them that are not read yet. (Others may come without end.)"""
        self._unsure = dict[bytes, None]()
        """Hashes with too many fields. Whether any field has a deadline is not known."""
        self._closer = asyncio.Event()
        self._telemetry.fields_bridged()
        self._strays = set[int]()
        """Other ledgers of a cluster whose fields have to be adopted."""
        self._room, self._again = asyncio.Event(), asyncio.Event()

    @property
    def settled(self) -> bool:
        """Whether everything that can be known of the time before this epoch is known, and handled."""
        return self._through and not self._owed

    def due_in(self) -> float | None:
        """Seconds until a script is due; None if only news can be a reason for one."""
        if self._hints:
            return 0
        if self._hints.waiting or self._lowest_ms is None or self._outbox.full:
            return None
        passed = (self._lowest_ms + 1 - self._redis_clock.now_ms()) / 1000
        return max(passed, self._not_before - self._clock.monotonic())

    async def step(self) -> None:
        """Send one script, if there is anything to do."""
        if len(self._hints) > self._limits.waiting or self._hints.bytes > self._limits.waiting_bytes:
            self._hints.clear()
            self._dropped, self._listed, self._through = True, False, False
            self._room.set()
            self.again()
        if self._listed:  # here, where no script is under way: what a script reads is in neither place
            self._listed, self._through = False, True
            self._owed = self._hints.unread()
        if self.settled:
            self._hints.lost = False
        if self._hints.emptied:
            self._hints.emptied = False
            if self._hashes:  # this bridge did not remove the last one
                self.again()
        due_in = self.due_in()
        if due_in is None or due_in > 0:
            return
        hints = self._hints.take(self._limits.hashes, self._limits.read_bytes)
        mark = self._writer.next_mark()
        due = 0 if self._outbox.full or self._hints.waiting else self._limits.hashes
        look = Look(self._writer.fence, self._writer.next_seq(), mark, self._gap.start_ms, hints, due)
        looked = await self._ledger.look(look)
        if looked is None:
            raise EpochEnded(Ending.LEASE_LOST, "lease lost: the ledger says that a script ran before it was sent")
        self._hints.give_back(hints[looked.handled :])
        if looked.waiting:
            self._marks.left(mark)
            self._hints.wait(mark, looked.waiting, hints)
        self._hints.go_on(looked.unfinished, hints[: looked.handled])
        self._owed -= {key for key, _ in hints[: looked.handled]}.difference(looked.waiting, looked.unfinished)
        self._learn(looked, due=due > 0)

    def _learn(self, looked: Looked, *, due: bool) -> None:
        self._redis_clock.set(looked.now_us / 1000)
        self._lowest_ms, self._hashes = looked.lowest_ms, looked.hashes
        claimed = looked.by_notification + looked.by_sweep
        if due and not claimed and looked.lowest_ms is not None and looked.lowest_ms < looked.now_us // 1000:
            self._not_before = self._clock.monotonic() + self._limits.retry  # do not spin
        self._outbox.holds(looked.depth)
        if claimed:
            self._outbox.added()
        self._report(looked)
        self._repaired(looked.repaired)
        if looked.unsure:
            self._unsure.update(dict.fromkeys(looked.unsure))
            self._closer.set()
        if len(self._hints) < self._limits.room:
            self._room.set()

    def _report(self, looked: Looked) -> None:
        ambiguous = looked.ambiguous
        self._telemetry.field_ledger_seen(looked.hashes - looked.left_out, looked.left_out, looked.lowest_ms)
        self._telemetry.fields_claimed(looked.by_notification, looked.by_sweep)
        if ambiguous.total:
            self._telemetry.fields_ambiguous(
                ambiguous.deleted, ambiguous.returned, ambiguous.elsewhere, ambiguous.too_large
            )
        if looked.excluded:
            self._telemetry.hashes_excluded(len(looked.excluded), self._limits.most)

    def _repaired(self, count: int) -> None:
        if count:
            self._telemetry.ledger_repaired(count)
            self.again()

    def again(self) -> None:
        """Go through all hashes once more, after the present pass."""
        self._again.set()

    def adopt(self, number: int) -> None:
        """Adopt the fields of another ledger on this node of a cluster, and go through all hashes."""
        self._strays.add(number)
        self.again()

    async def run(self) -> NoReturn:
        """Go through all hashes at once, at every interval (0: never), and when asked to."""
        while True:
            self._again.clear()
            self._dropped = False
            while self._strays:
                await self._adopt(self._strays.pop())
            await self._go_through()
            self._listed = not self._through and not self._dropped
            self._wake.set()
            await self._clock.wait(self._again, self._interval)

    async def look_closer(self) -> NoReturn:
        """Find the large hashes that have fields with deadlines, and have them read."""
        while True:
            self._closer.clear()
            while self._unsure:
                key, _ = self._unsure.popitem()
                if await self._ledger.has_deadlines(key):
                    self._hints.add(key, TIMED)
                    self._wake.set()
            await self._closer.wait()

    async def _adopt(self, number: int) -> None:
        left = 1
        while left:
            try:
                hashes, left, repaired = await self._ledger.adopt(self._writer.fence, number)
            except Fenced as error:
                raise EpochEnded(Ending.LEASE_LOST, f"lease lost: {error}") from error
            self._repaired(repaired)
            await self._hand_over(hashes)

    async def _go_through(self) -> None:
        await self._go_through_ledger()
        cursor = 0
        while True:
            cursor, keys = await self._ledger.hashes(cursor, self._match)
            await self._hand_over(key for key in keys if self._hints.matches(key))
            if not cursor:
                break

    async def _go_through_ledger(self) -> None:
        cursor = 0
        while True:
            found = await self._ledger.known(cursor)
            if found is None:
                self._lowest_ms = 0  # a script is due: it repairs the ledger
                self._wake.set()
                break
            cursor, keys = found
            await self._hand_over(keys)
            if not cursor:
                break

    async def _hand_over(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._hints.add(key)
        if self._hints:
            self._wake.set()
        while len(self._hints) >= self._limits.room:
            self._room.clear()
            await self._room.wait()
