"""Short-lived keys that prove a deployment: set, deleted and put off by whoever verifies it. Not for the service.

Guarantees: each key gets a deadline in the same command that sets it, so whoever dies when, none stays for ever; no
other key is touched. In a cluster each is sent to the node that has it, also while its slot is on its way. The time is
Redis's: this machine's clock may be wrong by any amount.
"""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio.client import Pipeline
from redis.exceptions import AskError, NoPermissionError, ResponseError

from bridge.errors import ErrorKind, Refused
from bridge.redis.admin.inspector import Inspector
from bridge.redis.admin.nodes import Nodes
from bridge.redis.wire.conversation import conversation, replies
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.topology import Topology
from bridge.settings import Settings

DRIFT = 100e-6
"""Seconds by which two clocks may part in a second."""
KEYS_PER_COMMAND = 500
FIELD = b"field"
"""What a field is called that is to expire."""

Word = bytes | str | int
Command = tuple[str, bytes, *tuple[Word, ...]]


@dataclass(frozen=True, slots=True)
class Reading:
    """Of the clock of one server."""

    ahead_ms: float
    """It is ahead of this process's monotonic one by that."""
    half_trip_ms: float
    read_at: float

    @property
    def error_ms(self) -> float:
        """By how much it may be wrong by now: half of a round trip, and the drift since then."""
        return self.half_trip_ms + (time.monotonic() - self.read_at) * DRIFT * 1000


class Probes:
    """The keys with one prefix in one database, or cluster. Every method but `close` raises NotConnected or Refused."""

    def __init__(self, settings: Settings, prefix: str, field: bytes | None = None) -> None:
        """`field`: of each key, a hash, it is that field which has the deadline, and nothing else is in it."""
        self._field = field
        self._nodes = Nodes(settings)
        self._prefix = prefix
        self._lost = True
        """Whether the last command failed, and the primaries are to be looked for."""
        self._clocks: dict[Inspector, Reading] = {}

    async def close(self) -> None:
        """Give the connections back."""
        await self._nodes.close()

    @property
    def now_ms(self) -> float:
        """Redis's clock, as `look` and `plant` have learned it: Unix milliseconds. Of several, the middle."""
        ahead = [clock.ahead_ms for clock in self._clocks.values()] or [0.0]
        return time.monotonic() * 1000 + (min(ahead) + max(ahead)) / 2

    @property
    def error_ms(self) -> float:
        """By how much `now_ms` may be wrong, on any server."""
        clocks = self._clocks.values()
        if not clocks:
            return float("inf")
        ahead = [clock.ahead_ms for clock in clocks]
        return max(clock.error_ms for clock in clocks) + (max(ahead) - min(ahead)) / 2

    async def look(self) -> None:
        """Read Redis's clock."""
        await self._run([])

    async def plant(self, deadlines_ms: Mapping[bytes, int]) -> None:
        """Set each key, with its deadline in Unix milliseconds. After an error, some may be set."""
        commands: list[Command] = []
        for key, deadline_ms in deadlines_ms.items():
            if self._field is None:
                commands.append(("SET", key, b"", "PXAT", deadline_ms))
            else:
                commands.append(("HSET", key, self._field, b""))
                commands.append(("HPEXPIREAT", key, deadline_ms, "FIELDS", 1, self._field))
        await self._run(commands)

    async def put_off(self, deadlines_ms: Mapping[bytes, int]) -> list[bool]:
        """Give each key a new deadline; of each, in order, whether it was still there."""
        if self._field is None:
            commands: list[Command] = [("PEXPIREAT", key, deadline_ms) for key, deadline_ms in deadlines_ms.items()]
            return [reply == 1 for reply in await self._run(commands)]
        commands = [("HPEXPIREAT", key, at_ms, "FIELDS", 1, self._field) for key, at_ms in deadlines_ms.items()]
        return [reply == [1] for reply in await self._run(commands)]

    async def delete(self, keys: Collection[bytes]) -> list[bool]:
        """Delete each key; of each, in order, whether it was still there."""
        listed, there = list(keys), list[bool]()
        for start in range(0, len(listed), KEYS_PER_COMMAND):
            some = listed[start : start + KEYS_PER_COMMAND]
            commands: list[Command] = [
                ("DEL", key) if self._field is None else ("HDEL", key, self._field) for key in some
            ]
            there += [reply == 1 for reply in await self._run(commands)]
        return there

    async def _run(self, commands: Sequence[Command]) -> list[object]:
        """The replies; and in passing, what Redis's clock says."""
        if self._lost:
            for inspector in (await self._nodes.find()).values():
                await inspector.locate()
        self._lost = True
        parts = defaultdict[Inspector, list[int]](list, {} if commands else {one: [] for one in self._nodes.known})
        for index, (_, key, *_) in enumerate(commands):
            parts[self._nodes.of(key)].append(index)
        answered = dict[int, object]()
        for inspector, part in parts.items():
            answers = await self._send(inspector, [commands[index] for index in part])
            answered |= zip(part, answers, strict=True)
        redirected = {index: reply for index, reply in answered.items() if isinstance(reply, AskError)}
        if self._nodes.topology is not None:
            answered |= await self._follow(self._nodes.topology, commands, redirected)
        self._lost = bool(redirected)
        return [answered[index] for index in range(len(commands))]

    async def _send(self, inspector: Inspector, commands: Iterable[Command]) -> list[object]:
        """The replies of one server; in a cluster, that a key is on another one is a reply."""
        pipeline = inspector.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        pipeline.time()
        asked = time.monotonic()
        async with conversation(inspector.endpoint):
            clustered = self._nodes.topology is not None
            answers = await self._answers(inspector.endpoint, pipeline, but=AskError if clustered else ())
            answered = time.monotonic()
        seconds, microseconds = answers.pop()
        half_trip_ms, known = (answered - asked) * 500, self._clocks.get(inspector)
        if known is None or half_trip_ms <= known.error_ms:
            ahead_ms = int(seconds) * 1000 + int(microseconds) / 1000 - (asked + answered) * 500
            self._clocks[inspector] = Reading(ahead_ms, half_trip_ms, answered)
        return answers

    async def _follow(
        self, topology: Topology, commands: Sequence[Command], redirected: Mapping[int, AskError]
    ) -> dict[int, object]:
        """The replies of the nodes that these were sent on to."""
        found = dict[int, object]()
        elsewhere = defaultdict[tuple[str, int], list[int]](list)
        for index, error in redirected.items():
            elsewhere[error.host, error.port].append(index)
        for address, part in elsewhere.items():
            endpoint, pipeline = topology.endpoint.at(address), topology.client(address).pipeline(transaction=False)
            for index in part:
                pipeline.execute_command("ASKING")
                pipeline.execute_command(*commands[index])
            async with conversation(endpoint):
                answers = (await self._answers(endpoint, pipeline))[1::2]
            found |= zip(part, answers, strict=True)
        return found

    async def _answers(
        self, endpoint: Endpoint, pipeline: Pipeline, *, but: type[ResponseError] | tuple[()] = ()
    ) -> list[Any]:
        """See `replies`. Raises Refused: the bridge's own user need not have the right to write such keys."""
        try:
            return await replies(pipeline, but=but)
        except NoPermissionError as error:
            mine = "+set +del +pexpireat" if self._field is None else "+hset +hdel +hpexpireat"
            more = "" if self._nodes.topology is None else " +asking +cluster|nodes"
            raise Refused(
                f"{endpoint.title} does not permit user {endpoint.user} to set the keys of a verification ({error})",
                f"ACL SETUSER {endpoint.user} (~{self._prefix}* {mine} +time{more}), or use another user"
                " (BRIDGE_REDIS_USERNAME)",
                ErrorKind.DENIED,
            ) from error
