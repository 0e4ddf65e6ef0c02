"""A prototype, for a report only: the deadline ledger as many small sorted sets, which Redis keeps in listpacks.

An entry is in the bucket of its key's digest. `…:deadlines` is the index: bucket → the first deadline in it. The number
of entries is a field of the lease, because no command counts them. The scripts are those of the ledger, changed at the
places where they reach it; what a walk, a repair, values or a cluster need is left out.
"""

import hashlib
from typing import Any

from redis.exceptions import NoScriptError

from bridge.redis.ledger.assembly import script
from bridge.redis.ledger.runner import Runner
from bridge.redis.protocol.calls import Argument
from bridge.redis.wire.commands import Commands

PER_BUCKET = 64
"""Entries of a bucket, on average: with a digest that spreads them, hardly any has more than 128."""

_ENTRIES = """
local BUCKETS = %d
local function bucket_of(deadlines, key)
  return deadlines .. ':' .. tonumber(string.sub(redis.sha1hex(key), 1, 8), 16) %% BUCKETS
end

local function by_bucket(deadlines, keys)
  local buckets = {}
  for _, key in ipairs(keys) do
    local name = bucket_of(deadlines, key)
    local there = buckets[name]
    if there then there[#there + 1] = key else buckets[name] = {key} end
  end
  return buckets
end

local function read_scores(deadlines, keys, scores)
  for name, there in pairs(by_bucket(deadlines, keys)) do
    local read = redis.call('ZMSCORE', name, unpack(there))
    for n, key in ipairs(there) do
      if scores[key] == nil then scores[key] = tonumber(read[n]) or false end
    end
  end
end

local function write_scores(deadlines, changed, scores)
  local keys, removed, added, firsts, empty = {}, 0, 0, {}, {}
  for key in pairs(changed) do keys[#keys + 1] = key end
  for name, there in pairs(by_bucket(deadlines, keys)) do
    local record, remove = {}, {}
    for _, key in ipairs(there) do
      if scores[key] then
        record[#record + 1], record[#record + 2] = scores[key], key
      else
        remove[#remove + 1] = key
      end
    end
    if #record > 0 then added = added + redis.call('ZADD', name, unpack(record)) end
    if #remove > 0 then removed = removed + redis.call('ZREM', name, unpack(remove)) end
    local first = redis.call('ZRANGE', name, 0, 0, 'WITHSCORES')
    if first[2] then
      firsts[#firsts + 1], firsts[#firsts + 2] = first[2], name
    else
      empty[#empty + 1] = name
    end
  end
  if #firsts > 0 then redis.call('ZADD', deadlines, unpack(firsts)) end
  if #empty > 0 then redis.call('ZREM', deadlines, unpack(empty)) end
  redis.call('HINCRBY', KEYS[2], 'size', added - removed)
  return removed
end
"""

_DUE = """
    entries, more = {}, false
    for _, name in ipairs(call('ZRANGE', deadlines, '-inf', past, 'BYSCORE', 'LIMIT', 0, limit)) do
      if #entries >= 2 * limit then more = true break end
      for _, word in ipairs(
        call('ZRANGE', name, '-inf', past, 'BYSCORE', 'LIMIT', 0, limit - #entries / 2, 'WITHSCORES')
      ) do entries[#entries + 1] = word end
    end
    wanted = limit
"""


def _changed(name: str, changes: dict[str, str]) -> str:
    """The script, with each of these texts replaced, which must be there once."""
    text = script(name)
    for old, new in changes.items():
        if text.count(old) != 1:
            raise ValueError(f"{name}.lua has changed: {old!r}")
        text = text.replace(old, new)
    return text


def _between(name: str, begin: str, end: str) -> str:
    text = script(name)
    return text[text.index(begin) : text.index(end) + len(end)]


def scripts(entries: int) -> dict[str, str]:
    """The changed scripts, by name, for a ledger of about that many entries."""
    of_entries = _between("apply", "local SLICE = 1000", "  return removed\nend\n")
    due = _between(
        "touch", "    entries = call('ZRANGE', deadlines, '-inf', past", "    more = #entries == 2 * wanted\n"
    )
    size = "call('ZCARD', deadlines)"
    counted = "tonumber(call('HGET', lease, 'size') or '0')"
    return {
        "apply": _changed("apply", {of_entries: _ENTRIES % max(entries // PER_BUCKET, 1), size: counted}),
        "touch": _changed("touch", {due: _DUE, size: counted}),
    }


class BucketRunner(Runner):
    """Runs them instead."""

    def __init__(self, commands: Commands, entries: int) -> None:
        super().__init__(commands)
        self._asked = commands
        self._texts = scripts(entries)

    async def run(self, name: str, keys: Any, arguments: Any, *, caching: bool = False) -> Any:  # noqa: ANN401
        """See `Runner`."""
        if name not in self._texts:
            return await super().run(name, keys, arguments, caching=caching)
        text = self._texts[name]
        digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        call: list[Argument] = ["EVALSHA", digest, len(keys), *keys, *arguments]
        (reply,) = await self._asked.answers([call])
        if isinstance(reply, NoScriptError):
            await self._asked.ask("SCRIPT", "LOAD", text)
            (reply,) = await self._asked.answers([call])
        if isinstance(reply, Exception):
            raise reply
        return reply
