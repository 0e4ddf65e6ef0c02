"""Short-lived keys that prove a deployment: set, deleted and put off by whoever verifies it. Not for the service.

Guarantees: each key gets a deadline in the same command that sets it, so whoever dies when, none stays for ever; no
other key is touched. The time is Redis's: this machine's clock may be wrong by any amount.
"""

import time
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from typing import Any

from redis.exceptions import NoPermissionError

from bridge.errors import Refused
from bridge.redis.connection import conversation
from bridge.redis.primary import Primary
from bridge.settings import Settings

DRIFT = 100e-6
"""Seconds by which two clocks may part in a second."""
KEYS_PER_COMMAND = 500

Word = bytes | str | int


class Probes:
    """The keys with one prefix in one database. Every method but `close` raises NotConnected or Refused."""

    def __init__(self, settings: Settings, prefix: str) -> None:
        self._primary = Primary(settings, connections=2)
        self._prefix = prefix
        self._lost = True
        """Whether the last command failed, and the primary is to be looked for."""
        self._ahead_ms = 0.0
        """Redis's clock less this process's monotonic one."""
        self._error_ms = float("inf")
        self._read_at = 0.0

    async def close(self) -> None:
        """Give the connections back."""
        await self._primary.close()

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
        await self._run([])

    async def plant(self, deadlines_ms: Mapping[bytes, int]) -> None:
        """Set each key, with its deadline in Unix milliseconds. After an error, some may be set."""
        await self._run([("SET", key, b"", "PXAT", deadline_ms) for key, deadline_ms in deadlines_ms.items()])

    async def put_off(self, deadlines_ms: Mapping[bytes, int]) -> list[bool]:
        """Give each key a new deadline; of each, in order, whether it was still there."""
        commands = [("PEXPIREAT", key, deadline_ms) for key, deadline_ms in deadlines_ms.items()]
        return [reply == 1 for reply in await self._run(commands)]

    async def delete(self, keys: Collection[bytes]) -> list[bool]:
        """Delete each key; of each, in order, whether it was still there."""
        listed, there = list(keys), list[bool]()
        for start in range(0, len(listed), KEYS_PER_COMMAND):
            commands = [("DEL", key) for key in listed[start : start + KEYS_PER_COMMAND]]
            there += [reply == 1 for reply in await self._run(commands)]
        return there

    async def _run(self, commands: Iterable[Sequence[Word]]) -> list[int]:
        """The replies; and in passing, what Redis's clock says."""
        if self._lost:
            await self._primary.locate()
        pipeline = self._primary.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        pipeline.time()
        asked, self._lost = time.monotonic(), True
        async with conversation(self._primary.endpoint):
            *replies, (seconds, microseconds) = await self._permitted(pipeline.execute())
        self._lost = False
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
            endpoint = self._primary.endpoint
            user = endpoint.credentials()[0] or "default"
            raise Refused(
                f"{endpoint.title} does not permit user {user} to set the keys of a verification ({error}):"
                f" ACL SETUSER {user} (~{self._prefix}* +set +del +pexpireat +time), or use another user"
                " (BRIDGE_REDIS_USERNAME)"
            ) from error
