"""A sink as the conformance suite calls it: what delivery does with one, reduced to open, publish and close."""

import asyncio
import contextlib
import time
from collections.abc import Collection, Mapping, Sequence

from bridge.contracts import Batch, Message, Order, Run, Session, Sink
from bridge.errors import NotConnected

PATIENCE = 30.0
CLAIMED_MS = int(time.time() * 1000)
"""Of all that is published, where a test does not say otherwise."""


class NotTaken(Exception):
    """What was not acked of a batch, all of which has its receipts."""

    def __init__(self, reasons: Mapping[int, str], acked: Collection[int]) -> None:
        super().__init__(next(iter(reasons.values())))
        self.reasons = dict(reasons)
        """By index."""
        self.acked = sorted(acked)


class TakenLater(NotTaken):
    """Some were refused, for now."""


class Rejected(NotTaken):
    """Some were rejected, and none refused."""


class Tally:
    """Receipts that remember. Fails where a message has two."""

    def __init__(self) -> None:
        self.acks: list[int] = []
        self.refusals: dict[int, str] = {}
        self.alone: set[int] = set()
        """Refused for a reason that concerns only their stream or topic."""
        self.rejections: dict[int, str] = {}

    def acked(self, indices: Collection[int]) -> None:
        """See `Receipts`."""
        self._new(indices)
        self.acks += indices

    def refused(self, reasons: Mapping[int, str], *, alone: bool = False) -> None:
        """See `Receipts`."""
        self.alone |= reasons.keys() if alone else set()
        self._new(reasons)
        self.refusals |= reasons

    def rejected(self, reasons: Mapping[int, str]) -> None:
        """See `Receipts`."""
        self._new(reasons)
        self.rejections |= reasons

    @property
    def known(self) -> set[int]:
        """Those that have a receipt."""
        return {*self.acks, *self.refusals, *self.rejections}

    def _new(self, indices: Collection[int]) -> None:
        assert len(set(indices)) == len(indices)
        assert self.known.isdisjoint(indices), "a message has two receipts"


class Caller:
    """Keeps one session of a sink."""

    def __init__(
        self, sink: Sink, places: dict[str, tuple[int, int]] | None = None, *, one_shard: bool = False
    ) -> None:
        """`places`: of each message that was ever published, by id, its shard and its index in the one entry of that.

        Callers of one outbox share it. `one_shard`: all is of one all the same.
        """
        self._one_shard = one_shard
        self.claimed_ms = CLAIMED_MS
        """Of what is published from now on."""
        self.sink = sink
        self._places = {} if places is None else places
        self.ends: list[str] = []
        """Why former sessions ended, once there was another one."""
        self._session: Session | None = None
        self._former: Session | None = None
        self._ending: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

    @property
    def connected(self) -> bool:
        """Whether there is a session that has not ended."""
        return self._session is not None

    async def open(self) -> None:
        """Connect, if there is no session."""
        async with self._opening:
            if self._session is not None:
                return
            if self._former is not None:
                await self._former.close()
            session = await self.sink.connect()
            if self._former is not None:
                self.ends.append(await self._former.ended())
            if self._ending is not None:
                await self._ending
            self._session = self._former = session
            self._ending = asyncio.create_task(self._watch(session), name="session-end")

    async def publish(self, batch: Sequence[Message]) -> None:
        """Return when all is acked. Raises TakenLater, Rejected or NotConnected; fails where a receipt is missing."""
        tally = Tally()
        await self.publish_with(tally, batch)
        assert tally.known == set(range(len(batch))), "a message has no receipt"
        if tally.refusals:
            raise TakenLater(tally.refusals, tally.acks)
        if tally.rejections:
            raise Rejected(tally.rejections, tally.acks)

    async def publish_with(self, tally: Tally, batch: Sequence[Message]) -> None:
        """The same, with receipts of the test's own."""
        session = self._session
        if session is None:
            raise NotConnected("not open")
        try:
            await session.publish(Batch(batch, self._runs(batch)), tally)
        except NotConnected:
            if self._session is session:
                self._session = None
            raise

    async def deliver(self, batch: Sequence[Message]) -> None:
        """Publish as delivery does: until all has its final receipt, and nothing again that has. Raises Rejected."""
        left, rejected = list(range(len(batch))), dict[int, str]()
        async with asyncio.timeout(PATIENCE):
            while left:
                tally = Tally()
                try:
                    await self.publish_with(tally, [batch[index] for index in left])
                except NotConnected:
                    with contextlib.suppress(NotConnected):
                        await self.open()
                rejected |= {left[number]: reason for number, reason in tally.rejections.items()}
                done = {*tally.acks, *tally.rejections}
                left = [index for number, index in enumerate(left) if number not in done]
                await asyncio.sleep(0.01)
        if rejected:
            raise Rejected(rejected, set(range(len(batch))) - rejected.keys())

    async def close(self) -> None:
        """End the session; there is none any more."""
        former, self._session, self._former = self._former, None, None
        if former is not None:
            await former.close()
        if self._ending is not None:
            await self._ending
            self._ending = None

    async def _watch(self, session: Session) -> None:
        await session.ended()
        if self._session is session:
            self._session = None

    def _runs(self, batch: Sequence[Message]) -> list[Run]:
        """Where its messages come from: a batch that is new has a shard of its own, so that none waits for another."""
        if self.sink.order is Order.KEY:
            return []
        new = len(self._places)
        for index, message in enumerate(batch):
            self._places.setdefault(message.id, (new, index))
        places = (self._places[message.id] for message in batch)
        return [
            Run(0 if self._one_shard else shard, b"1-1", index, 1, claimed_ms=self.claimed_ms)
            for shard, index in places
        ]
