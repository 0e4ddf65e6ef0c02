"""Scripts of the writer's, run wherever their keys are: what came of each, or that nobody knows."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

from redis.exceptions import ConnectionError as LostError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as SilentError

from tests.chaos.topology import Home, Topology
from tests.support.deployments.scene import Scene
from tests.support.servers import RedisServer

CENSUS_KEYS = 1_000
"""Keys in one question."""

_CENSUS = """
local found, ledgers, keys = {}, tonumber(ARGV[1]), {}
for i = ledgers + 2, #ARGV do keys[#keys + 1] = ARGV[i] end
for n = 1, ledgers do
  local scores = redis.pcall('ZMSCORE', ARGV[n + 1], unpack(keys)) -- in a cluster, most are elsewhere
  if not scores.err then
    for i, score in ipairs(scores) do if score then found[#found + 1], found[#found + 2] = keys[i], score end end
  end
end
return found
"""


class Untold(Enum):
    """Why there is no reply."""

    REFUSED = auto()
    """The script has not run: its keys are elsewhere, or on their way, or nowhere for the moment."""
    LOST = auto()
    """It may have run."""


Reply = Sequence[Any] | Untold
Script = tuple[str, Sequence[str], Sequence[str]]
"""Its text, its keys, of one slot, and its other arguments."""


class Keyspace:
    """All primaries."""

    def __init__(self, topology: Topology[Scene]) -> None:
        self._topology = topology
        self._home: Home | None = None

    async def run(self, scripts: Sequence[Script]) -> list[Reply]:
        """Run them in this order, as far as they are on one server."""
        home = await self._known()
        parts = defaultdict[RedisServer, list[int]](list)
        for number, (_, keys, _) in enumerate(scripts):
            parts[home(keys[0])].append(number)
        replies: dict[int, Reply] = {}
        found = await asyncio.gather(
            *(self._run_on(server, [scripts[number] for number in numbers]) for server, numbers in parts.items())
        )
        for numbers, some in zip(parts.values(), found, strict=True):
            replies.update(zip(numbers, some, strict=True))
        return [replies[number] for number in range(len(scripts))]

    async def recorded(self, keys: Sequence[str]) -> list[tuple[str, str]]:
        """What the ledgers know of the keys: each with its deadline. Fewer, where somebody does not answer."""
        home = await self._known()
        parts = defaultdict[RedisServer, list[str]](list)
        for key in keys:
            parts[home(key)].append(key)
        ledgers = self._topology.ledgers
        known: list[tuple[str, str]] = []
        for server, some in parts.items():
            for start in range(0, len(some), CENSUS_KEYS):
                arguments = (str(len(ledgers)), *ledgers, *some[start : start + CENSUS_KEYS])
                (reply,) = await self._run_on(server, [(_CENSUS, [], arguments)])
                if not isinstance(reply, Untold):
                    known += zip(reply[::2], reply[1::2], strict=True)
        return known

    async def _known(self) -> Home:
        if self._home is None:
            self._home = await self._topology.locate()
        return self._home

    async def _run_on(self, server: RedisServer, scripts: Sequence[Script]) -> list[Reply]:
        async with self._topology.client(server).pipeline(transaction=False) as pipeline:
            for text, keys, arguments in scripts:
                pipeline.eval(text, len(keys), *keys, *arguments)
            try:
                replies = await pipeline.execute(raise_on_error=False)
            except (LostError, SilentError):
                self._home = None
                return [Untold.LOST] * len(scripts)
        return [self._told(reply) for reply in replies]

    def _told(self, reply: object) -> Reply:
        if not isinstance(reply, RedisError):
            assert isinstance(reply, list)
            return reply
        self._home = None
        if isinstance(reply, ResponseError):
            if not any(word in repr(reply) for word in ("Moved", "Ask", "TryAgain", "ClusterDown", "ReadOnly")):
                raise reply
            return Untold.REFUSED
        return Untold.LOST
