"""A writer of keys that live for some tenths of a second: nobody finds later what was missed of them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from random import Random

from tests.support.deployments.jetstream import Deployment
from tests.support.servers import PATIENCE, wait_until

LIFE_MS = (150, 400)
OF_A_TURN = 10
TURN_SECONDS = 0.02
TURNS_BETWEEN = 20
"""Turns of the writer before and after each fault."""


class Writer:
    """Sets keys that live for a moment; deletes some, and puts some off."""

    def __init__(self, deployment: Deployment) -> None:
        self.turns = 0
        self.resting = False
        self.deadlines: dict[str, int] = {}
        """Key → when it has to expire. What was deleted is not in it."""
        self.deleted: set[str] = set()
        self._redis = deployment.user
        self._random = Random(7)
        self._numbers = count()

    async def run(self) -> None:
        """Write until told to rest."""
        while not self.resting:
            keys = [f"short:{next(self._numbers)}" for _ in range(OF_A_TURN)]
            for key in keys:
                both = self._redis.pipeline()
                both.set(key, "", px=self._random.randint(*LIFE_MS))
                both.pexpiretime(key)
                _, self.deadlines[key] = await both.execute()
            await self._meddle(keys)
            self.turns += 1
            await asyncio.sleep(TURN_SECONDS)

    async def _meddle(self, keys: list[str]) -> None:
        """With keys that have most of their life before them."""
        put_off, gone = self._random.sample(keys, 2)
        both = self._redis.pipeline()
        both.pexpire(put_off, LIFE_MS[1])
        both.pexpiretime(put_off)
        is_there, deadline = await both.execute()
        if is_there:
            self.deadlines[put_off] = deadline
        if await self._redis.delete(gone):
            del self.deadlines[gone]
            self.deleted.add(gone)

    @property
    def expired(self) -> int:
        """How many keys had to expire."""
        return len(self.deadlines)

    async def goes_on(self) -> None:
        """Return some turns later."""
        until = self.turns + TURNS_BETWEEN
        await wait_until(lambda: self.turns >= until, "the writer", PATIENCE)


@asynccontextmanager
async def at_work(deployment: Deployment) -> AsyncIterator[Writer]:
    """A writer at work while the context lasts. What it does is known then: no turn is broken off."""
    writer = Writer(deployment)
    task = asyncio.create_task(writer.run(), name="writer")
    try:
        await writer.goes_on()
        yield writer
        await writer.goes_on()
    finally:
        writer.resting = True
        await task


@asynccontextmanager
async def writing(deployment: Deployment, *, exact: bool = True) -> AsyncIterator[Writer]:
    """A writer at work while the context lasts. At its end, all that it has set is expected to be stored, once.

    `exact`: with the last deadline, where one is known; else it may be the last one that was recorded.
    """
    async with at_work(deployment) as writer:
        yield writer
    stored: list[tuple[str, int | None]] = []

    async def are_stored() -> bool:
        stored[:] = [(one.key, one.deadline_ms) for one in await deployment.stored() or ()]
        return writer.deadlines.keys() <= {key for key, _ in stored}

    def missing() -> str:
        return f"not stored: {sorted(writer.deadlines.keys() - {key for key, _ in stored})[:5]}"

    await wait_until(are_stored, missing, PATIENCE)
    twice = [key for key, times in Counter(key for key, _ in stored).items() if times > 1]
    assert twice == []
    assert len(writer.deleted & {key for key, _ in stored}) == await _excess(deployment)
    # A key that was put off while its hint was on its way may have no known deadline; a wrong one it never has.
    kept = [one for one in stored if one[0] not in writer.deleted]
    assert [one for one in kept if exact and one[1] not in {writer.deadlines[one[0]], None}] == []


async def _excess(deployment: Deployment) -> int:
    """How many deletions are announced, by the gap records."""
    return sum(gap.get("excess", 0) for gap in await deployment.gaps())
