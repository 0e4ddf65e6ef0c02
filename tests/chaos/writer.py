"""A user's services: they set, refresh, persist, rename and delete keys, at their own pace, and keep the book of it."""

import asyncio
import json
import random
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count

from tests.chaos.keyspace import Keyspace, Untold
from tests.chaos.topology import Topology
from tests.support.deployments.scene import PREFIX, Scene, now_ms
from tests.support.servers import PATIENCE, wait_until

Commands = Sequence[Sequence[str]]

BURST = 12
"""Scripts sent at once, at most."""
BURST_PAUSE = 0.1
"""Seconds between two bursts, at most."""
CROWD, CROWD_SHARE = 500, 0.005
"""So many keys are set at once, which expire at once, instead of that share of the bursts."""
CENSUS_PAUSE = 0.1
"""Seconds between two looks at the ledger."""
LIVES_MS = ((5, 100), (200, 1_500), (1_500, 4_000), (4_000, 12_000))
"""How long keys live: often too short to be recorded, often long enough to be so before a fault and to expire in it."""
LOOK_MS = (50, 1_500)
"""How long after its deadline a key is looked at that was not seen to be recorded: how else to know that it is gone?"""
HOT = 40
"""Keys that have several lives, at the same time…"""
HOT_SCRIPTS = 30
"""…each, before another one takes its place: the fewer, the better can be told what a message is about."""
FRESH = 0.4
"""The share of scripts that set a key which nobody touches again."""
HOT_GROUPS = 8
"""Those of a group share a slot, where there are slots: only then can one be renamed to another."""
NEIGHBOURS = 50
"""So many of all other keys do, one after the other: then a slot that moves has some of them."""

KEY, OTHER, DEADLINE = "@key", "@other", "@deadline"
_SET: Commands = (("SET", KEY, "some value", "PXAT", DEADLINE),)
_OFTEN: dict[str, tuple[int, Commands]] = {
    "set": (30, _SET),
    "set, then expire": (8, (("SET", KEY, "some value"), ("PEXPIREAT", KEY, DEADLINE))),
    "refresh": (12, (("PEXPIREAT", KEY, DEADLINE),)),
    "read and refresh": (6, (("GETEX", KEY, "PXAT", DEADLINE),)),
    "persist": (5, (("PERSIST", KEY),)),
    "overwrite": (5, (("SET", KEY, "for good"),)),
    "overwrite, keeping the deadline": (3, (("SET", KEY, "another value", "KEEPTTL"),)),
    "delete": (10, (("DEL", KEY),)),
    "unlink": (3, (("UNLINK", KEY),)),
    "read and delete": (3, (("GETDEL", KEY),)),
    "delete and set": (5, (("DEL", KEY), *_SET)),
    "rename": (5, (("RENAME", KEY, OTHER),)),
    "copy": (4, (("COPY", KEY, OTHER, "REPLACE"),)),
    "look": (4, ()),
}
"""What is done, and how often."""

_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local words = {['@key'] = KEYS[1], ['@other'] = KEYS[2], ['@deadline'] = string.format('%.0f', now + ARGV[1])}
local function deadline_of(key) -- what is not there is an error in a slot that is on its way
  local deadline = redis.pcall('PEXPIRETIME', key)
  return type(deadline) == 'number' and deadline or -2
end
local reply = {now}
for i, key in ipairs(KEYS) do
  local score = ''
  for n = 3, #ARGV do
    local found = redis.pcall('ZSCORE', ARGV[n], key) -- in a cluster, most are elsewhere
    if type(found) == 'string' then score = found end
  end
  reply[#reply + 1] = deadline_of(key)
  reply[#reply + 1] = score
end
for _, command in ipairs(cjson.decode(ARGV[2])) do
  for i, word in ipairs(command) do command[i] = words[word] or word end
  redis.pcall(unpack(command)) -- RENAME complains if there is nothing to rename
end
for _, key in ipairs(KEYS) do reply[#reply + 1] = deadline_of(key) end
return reply
"""


class Writer:
    """Straight to Redis, past the proxies. The book is complete after `run`, `past` and `finish`."""

    def __init__(self, topology: Topology[Scene], chance: random.Random) -> None:
        self.book = topology.book
        self._topology = topology
        self._keyspace = Keyspace(topology)
        self._chance = chance
        self._numbers = count()
        self._hot = [(self._name(place % HOT_GROUPS), chance.randrange(HOT_SCRIPTS)) for place in range(HOT)]
        self._looks: list[tuple[int, str]] = []
        self._longest_ms = LIVES_MS[-1][1]

    async def run(self, seconds: float) -> None:
        """Write for so long; towards the end, what lives shortly."""
        end_ms = now_ms() + seconds * 1000
        census_ms = 0
        while (left_ms := int(end_ms - now_ms())) > 0:
            self._longest_ms = max(min(LIVES_MS[-1][1], left_ms), LIVES_MS[0][1])
            if self._chance.random() < CROWD_SHARE:
                ttl_ms = self._lifetime()
                await self._burst([(ttl_ms, self._name(), None, _SET) for _ in range(CROWD)])
            else:
                await self._burst([self._next() for _ in range(self._chance.randint(1, BURST))])
            await self._look(now_ms())
            if now_ms() - census_ms > CENSUS_PAUSE * 1000:
                await self._census()
                census_ms = now_ms()
            await asyncio.sleep(self._chance.uniform(0, BURST_PAUSE))

    async def set(self, ttl_ms: int) -> None:
        """Set one more key, that nobody touches again."""
        await self._burst([(ttl_ms, self._name(), None, _SET)])

    async def past(self) -> None:
        """Return when no key has a deadline any more, without touching one. The ledger was looked at until then."""

        async def all_are() -> bool:
            await self._census()
            lives = [history.current for history in self.book.histories.values() if not history.doubtful]
            return all(life is None or life.deadline_ms < now_ms() for life in lives)

        await wait_until(all_are, "the last deadline", PATIENCE)

    async def finish(self) -> None:
        """Look at all keys whose end is not known yet."""
        while names := [name for name, known in self.book.histories.items() if known.current and not known.doubtful]:
            for start in range(0, len(names), BURST):
                await self._burst([(0, name, None, ()) for name in names[start : start + BURST]])

    def _name(self, group: int | None = None) -> str:
        """A new key; of a group of hot ones, or of none."""
        number = next(self._numbers)
        tag = f"{number // NEIGHBOURS}" if group is None else f"hot {group}"
        return f"{PREFIX}{{{tag}}}{number}"

    def _next(self) -> tuple[int, str, str | None, Commands]:
        """Time to live, key, perhaps another one, and what is done to them."""
        chance, ttl_ms = self._chance, self._lifetime()
        if chance.random() < FRESH:
            return ttl_ms, self._name(), None, _SET
        weights, kinds = zip(*_OFTEN.values(), strict=True)
        commands: Commands = chance.choices(kinds, weights)[0]
        place, place_of_other = chance.sample(range(chance.randrange(HOT_GROUPS), HOT, HOT_GROUPS), 2)
        has_other = any(OTHER in command for command in commands)
        return ttl_ms, self._take(place), self._take(place_of_other) if has_other else None, commands

    def _lifetime(self) -> int:
        least, most = (min(ms, self._longest_ms) for ms in self._chance.choice(LIVES_MS))
        return self._chance.randint(least if least < most else LIVES_MS[0][0], most)

    def _take(self, place: int) -> str:
        name, used = self._hot[place]
        gone = used >= HOT_SCRIPTS or self.book.histories[name].doubtful
        self._hot[place] = (self._name(place % HOT_GROUPS), 0) if gone else (name, used + 1)
        return name if not gone else self._hot[place][0]

    async def _burst(self, scripts: Sequence[tuple[int, str, str | None, Commands]]) -> None:
        """Run the scripts, and write down what they saw."""
        keys = [[key] if other is None else [key, other] for _, key, other, _ in scripts]
        ledgers = self._topology.ledgers
        async with self._topology.still:
            replies = await self._keyspace.run(
                [
                    (_SCRIPT, names, (str(ttl_ms), json.dumps(commands), *ledgers))
                    for names, (ttl_ms, _, _, commands) in zip(keys, scripts, strict=True)
                ]
            )
        for names, reply in zip(keys, replies, strict=True):
            if reply is Untold.LOST:
                for name in names:
                    self.book.unsure(name)
            if isinstance(reply, Untold):
                continue
            now, *seen = reply
            for number, name in enumerate(names):
                before, score = seen[2 * number : 2 * number + 2]
                life = self.book.saw(name, now, before, score, seen[2 * len(names) + number])
                if life is not None:
                    heappush(self._looks, (life.deadline_ms + self._chance.randint(*LOOK_MS), name))

    async def _look(self, now: int) -> None:
        """Look at keys that have expired, and were not seen to be recorded."""
        names = set()
        while self._looks and self._looks[0][0] < now:
            _, name = heappop(self._looks)
            history = self.book.histories[name]
            if history.current and not history.current.recorded and history.current.deadline_ms < now:
                names.add(name)
        if names:
            await self._burst([(0, name, None, ()) for name in sorted(names)])

    async def _census(self) -> None:
        """Look what the ledger knows; touches no key."""
        lives = {life.key: life for life in self.book.unrecorded()}
        if not lives:
            return
        async with self._topology.still:
            known = await self._keyspace.recorded([*lives])
        for key, score in known:
            self.book.knows(lives[key], score)
