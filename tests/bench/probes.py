"""Keys that expire one after the other at an even pace: how late each is, by the broker's own timestamps."""

import asyncio
import json
import time
from typing import Final

from redis.asyncio import Redis

from tests.bench.stage import JetStreamStage, in_seconds, until

TTL_SECONDS: Final = 1.0


class Probes:
    """Keys of one prefix, and their deadlines."""

    def __init__(self, prefix: str, per_second: int) -> None:
        self.deadlines: dict[str, int] = {}
        """Key → Unix ms."""
        self._prefix = prefix
        self._per_second = per_second

    async def set(self, redis: Redis, count: int) -> None:
        """Set so many; return when the last one's deadline is past."""
        begun_ms = time.time() * 1000
        for index in range(count):
            await until(begun_ms + index * 1000 / self._per_second)
            key = f"{self._prefix}:{index:06d}"
            self.deadlines[key] = in_seconds(TTL_SECONDS)
            await redis.set(key, "some value", pxat=self.deadlines[key])
        await asyncio.sleep(TTL_SECONDS)

    async def lags(self, stage: JetStreamStage) -> list[float]:
        """Milliseconds from the deadline until the broker stored it, of all of them, once they are there."""
        stored = {}
        for body, stored_ms in await stage.read(f"expired.0.{self._prefix}", len(self.deadlines)):
            stored[json.loads(body)["subject"]] = stored_ms
        return [stored[key] - deadline for key, deadline in self.deadlines.items()]
