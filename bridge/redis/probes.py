"""Short-lived keys that prove a deployment: set, deleted and put off by whoever verifies it. Not for the service.

Guarantees: each key gets a deadline in the same command that sets it, so whoever dies when, none stays for ever; no
other key is touched. The time is Redis's: this machine's clock may be wrong by any amount.
"""

import time
from collections.abc import Awaitable, Collection, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import NoPermissionError

from bridge.errors import Refused
from bridge.redis.connection import Endpoint, conversation
from bridge.settings import Settings

DRIFT = 100e-6
"""Seconds by which two clocks may part in a second."""
KEYS_PER_COMMAND = 500


class Probes:
    """The keys with one prefix in one database. Every method but `close` raises NotConnected or Refused."""

    def __init__(self, settings: Settings, prefix: str) -> None:
        self._endpoint = Endpoint.of(settings)
        self._prefix = prefix
        self._client: Redis = self._endpoint.client(connections=2)
        self._ahead_ms = 0.0
        """Redis's clock less this process's monotonic one."""
        self._error_ms = float("inf")
        self._read_at = 0.0

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()

    @property
    def now_ms(self) -> float:
        """Redis's clock, as `look` and `plant` have learned it: Unix milliseconds."""
        return time.monotonic() * 1000 + self._ahead_ms

    @property
    def error_ms(self) -> float:
        """By how much `now_ms` may be wrong: half of a round trip, and the drift since then."""
        return self._error_ms + (time.monotonic() - self._read_at) * DRIFT * 1000

    async def look(self) -> None:
        """Read Redis's clock."""
        await self._run(self._client.pipeline(transaction=False))

    async def plant(self, deadlines_ms: Mapping[bytes, int]) -> None:
        """Set each key, with its deadline in Unix milliseconds. After an error, some may be set."""
        pipeline = self._client.pipeline(transaction=False)
        for key, deadline_ms in deadlines_ms.items():
            pipeline.set(key, b"", pxat=deadline_ms)
        await self._run(pipeline)

    async def put_off(self, deadlines_ms: Mapping[bytes, int]) -> list[bool]:
        """Give each key a new deadline; of each, in order, whether it was still there."""
        pipeline = self._client.pipeline(transaction=False)
        for key, deadline_ms in deadlines_ms.items():
            pipeline.pexpireat(key, deadline_ms)
        return [reply == 1 for reply in await self._run(pipeline)]

    async def delete(self, keys: Collection[bytes]) -> list[bool]:
        """Delete each key; of each, in order, whether it was still there."""
        listed, there = list(keys), list[bool]()
        for start in range(0, len(listed), KEYS_PER_COMMAND):
            pipeline = self._client.pipeline(transaction=False)
            for key in listed[start : start + KEYS_PER_COMMAND]:
                pipeline.delete(key)
            there += [reply == 1 for reply in await self._run(pipeline)]
        return there

    async def _run(self, pipeline: Pipeline) -> list[int]:
        """The replies; and in passing, what Redis's clock says."""
        pipeline.time()
        asked = time.monotonic()
        async with conversation(self._endpoint):
            *replies, (seconds, microseconds) = await self._permitted(pipeline.execute())
        answered = time.monotonic()
        error_ms = (answered - asked) * 500
        if error_ms <= self.error_ms:
            self._ahead_ms = int(seconds) * 1000 + int(microseconds) / 1000 - (asked + answered) * 500
            self._error_ms, self._read_at = error_ms, answered
        return replies

    async def _permitted(self, replies: Awaitable[list[Any]]) -> list[Any]:
        """Raises Refused: the bridge's own user need not have the right to write such keys."""
        try:
            return await replies
        except NoPermissionError as error:
            user = self._endpoint.credentials()[0] or "default"
            raise Refused(
                f"Redis at {self._endpoint} does not permit user {user} to set the keys of a verification ({error}):"
                f" ACL SETUSER {user} (~{self._prefix}* +set +del +pexpireat +time), or use another user"
                " (BRIDGE_REDIS_USERNAME)"
            ) from error
