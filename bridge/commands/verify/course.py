"""The course of a verification: keys are set at an even pace, what is stored is read, until all is there or awaited
in vain.
"""  # noqa: D205 - one sentence

import asyncio
import itertools
from collections.abc import Callable
from time import monotonic

from bridge.backoff import Backoff
from bridge.commands.readers import Reader
from bridge.commands.verify.books import Books, Moment
from bridge.commands.verify.plan import PUT_OFF_MS
from bridge.errors import BridgeError, NotConnected
from bridge.redis.admin.probes import Probes
from bridge.tasks import run_together

TICK_SECONDS = 0.02
WATCH_SECONDS = 0.1
CLOCK_SECONDS = 1.0
"""How often Redis's clock is read while nothing is set."""
SETTLING_SECONDS = 1.0
"""How long duplicates and falsehoods are awaited once all is there."""
MOST_AHEAD = 2
"""Ticks' worth of keys that are set at once, at most, to catch up: no bursts."""
RETRY_SECONDS = 2.0


class Course:
    """One verification. Whatever its end, `cleaned_up` is to be called."""

    def __init__(self, books: Books, probes: Probes, reader: Reader) -> None:
        self._books = books
        self._plan = books.plan
        self._probes = probes
        self._reader = reader
        self._put_off_to_ms = 0
        self._planted = asyncio.Event()
        self._controls: list[int] = []
        """Those that are set, and not taken back yet."""
        self._lost: BridgeError | None = None
        """Why the broker cannot be read now."""
        self.begun = False
        """Whether there may be keys."""
        self.interrupted = False
        """Set it to end early: no more keys, and no more patience."""

    async def run(self, progress: Callable[[int], None]) -> None:
        """Return when it is over; `progress` is told how many keys are delivered.

        Raises NotConnected or Refused: nothing can be said, because a server cannot be reached or does not permit it.
        """
        await self._probes.look()
        await self._reader.open()
        self.begun = True
        self._put_off_to_ms = int(self._probes.now_ms) + self._plan.length_ms + self._plan.patience_ms + PUT_OFF_MS
        steps = {"planting": self._plant(), "reading": self._read(), "watching": self._watch(progress)}
        await run_together(steps, until="watching")
        if self._lost is not None and self._books.awaited and not self.interrupted:
            raise self._lost

    async def cleaned_up(self) -> int:
        """Delete the keys that are left, and give everything back; how many could not be deleted."""
        left = 0
        try:
            await self._probes.delete(list(self._books.left()))
        except BridgeError:
            left = sum(1 for _ in self._books.left())
        await self._probes.close()
        await self._reader.close()
        return left

    async def _plant(self) -> None:
        """Raises NotConnected or Refused."""
        numbers, per_tick = range(self._plan.total), self._plan.rate * TICK_SECONDS
        planted, allowed = 0, 0.0
        last = monotonic()
        while planted < len(numbers) and not self.interrupted:
            now = monotonic()
            allowed = min(allowed + (now - last) * self._plan.rate, max(MOST_AHEAD * per_tick, 1.0))
            last = now
            await self._take_back()
            batch = numbers[planted : planted + int(allowed)]
            if batch:
                await self._set(batch)
                planted += len(batch)
                allowed -= len(batch)
            await asyncio.sleep(TICK_SECONDS)
        await self._take_back()
        self._planted.set()

    async def _set(self, batch: range) -> None:
        """Every key is in the books before it can expire."""
        now_ms, deadlines_ms = int(self._probes.now_ms), dict[bytes, int]()
        for number in batch:
            deadline_ms = deadlines_ms[self._plan.key(number)] = now_ms + self._plan.ttl_ms(number)
            self._books.plant(number, deadline_ms)
        await self._probes.plant(deadlines_ms)
        self._controls += filter(self._plan.is_control, batch)

    async def _take_back(self) -> None:
        """The controls of the tick before: by now the bridge knows them, or will have to make do."""
        controls, self._controls = self._controls, []
        deleted = [number for number in controls if self._plan.is_deleted(number)]
        put_off = [number for number in controls if not self._plan.is_deleted(number)]
        there = await self._probes.delete([self._plan.key(number) for number in deleted]) if deleted else []
        there += (
            await self._probes.put_off({self._plan.key(n): self._put_off_to_ms for n in put_off}) if put_off else []
        )
        for number, in_time in zip(itertools.chain(deleted, put_off), there, strict=True):
            self._books.withdraw(number, in_time=in_time)

    async def _read(self) -> None:
        """For as long as it is not cancelled. Raises Refused."""
        backoff = Backoff(most=RETRY_SECONDS)
        while True:
            try:
                if self._lost is not None:
                    await self._reader.open()
                    self._lost = None
                arrivals = await self._reader.read()
            except NotConnected as error:
                self._lost = error
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            moment = Moment(self._probes.now_ms, self._probes.error_ms)
            for arrival in arrivals:
                self._books.arrived(arrival, moment)

    async def _watch(self, progress: Callable[[int], None]) -> None:
        """Return when all is there and has settled, or nothing has come for too long."""
        clock_read_at = changed_at = monotonic()
        delivered = -1
        while True:
            now = monotonic()
            if self._books.delivered != delivered or not self._all_due():
                delivered, changed_at = self._books.delivered, now
                progress(delivered)
            if self._planted.is_set():
                patience = self._plan.patience_ms / 1000 if self._books.awaited else SETTLING_SECONDS
                if self.interrupted or now - changed_at >= patience:
                    return
                if now - clock_read_at >= CLOCK_SECONDS:
                    clock_read_at = now
                    await self._read_clock()
            await asyncio.sleep(WATCH_SECONDS)

    def _all_due(self) -> bool:
        return self._planted.is_set() and self._probes.now_ms > self._books.last_deadline_ms

    async def _read_clock(self) -> None:
        try:
            await self._probes.look()
        except NotConnected:
            return  # Redis may come back; meanwhile our clock serves
