"""Lua 5.1, as in Redis: the bridge's real scripts run here, with Redis's conversions between Lua's values and its own.

Faithful: `redis.call` raises and `redis.pcall` returns `{err = …}`; numbers lose their fraction on the way out, and are
written with 17 digits on the way in; a null is false, and false is a null; an array ends at its first nil; `cmsgpack`
knows no binary type, and takes a number without a fraction for an integer.
"""

from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha1
from typing import Any

import msgpack
from lupa import lua51

from tests.simulation.redis.values import CommandError, Failure, Reply, Status, number

Call = Callable[[list[bytes]], Reply]
"""One command of a script's. Raises CommandError."""

_PRELUDE = b"""
local unwrap = function(reply)
  if type(reply) == 'table' and reply.err then error(reply, 0) end
  return reply
end
redis = {
  call = function(...) return unwrap(python_call(...)) end,
  pcall = function(...) return python_call(...) end,
  error_reply = function(text) return {err = text} end,
  status_reply = function(text) return {ok = text} end,
}
cmsgpack = {}
run_script = function(body, keys, words)
  local fine, reply = pcall(body, keys, words)
  if fine then return reply end
  if type(reply) == 'table' then return {err = reply.err} end
  return {err = 'ERR ' .. tostring(reply)}
end
"""


class Interpreter:
    """One Lua, for all servers: scripts keep nothing between calls, as Redis has no globals of theirs."""

    def __init__(self) -> None:
        self._lua: Any = lua51.LuaRuntime(encoding=None, unpack_returned_tuples=False)
        self._call: Call | None = None
        self._broken: Exception | None = None
        names = self._lua.globals()
        names.python_call = self._called
        self._lua.execute(_PRELUDE)
        names.cmsgpack.unpack = lambda packed: self._table(msgpack.unpackb(packed, raw=True))
        names.cmsgpack.pack = lambda table: msgpack.packb(_plain(table), use_bin_type=False)
        self._run = names.run_script

    @cache  # noqa: B019 - it lives as long as the process
    def compiled(self, source: bytes) -> object:
        """The script as a function of KEYS and ARGV."""
        return self._lua.eval(b"function(KEYS, ARGV) " + source + b"\nend")

    def run(self, source: bytes, keys: Sequence[bytes], words: Sequence[bytes], call: Call) -> Reply:
        """What the script answers. Raises CommandError where it fails."""
        self._call, self._broken = call, None
        table = self._lua.table_from
        try:
            reply = self._run(self.compiled(source), table(keys), table(words))
        finally:
            self._call = None
        if self._broken is not None:
            raise self._broken
        answer = _reply(reply)
        if isinstance(answer, Failure):
            raise CommandError(answer.text.decode("latin-1"))
        return answer

    def _called(self, *words: object) -> object:
        """`redis.call`: an error is a table, which the prelude raises."""
        assert self._call is not None
        try:
            return self._lua_value(self._call([_word(word) for word in words]))
        except CommandError as error:
            return self._lua.table_from({b"err": str(error).encode("latin-1")})
        except Exception as error:
            self._broken = error  # of the simulation, not of the script
            raise

    def _lua_value(self, reply: Reply) -> object:
        if reply is None:
            return False
        if isinstance(reply, Status):
            return self._lua.table_from({b"ok": bytes(reply)})
        if isinstance(reply, list):
            return self._lua.table_from([self._lua_value(one) for one in reply])
        if isinstance(reply, Failure):
            return self._lua.table_from({b"err": reply.text})
        return reply

    def _table(self, value: object) -> object:
        if isinstance(value, list):
            return self._lua.table_from([self._table(one) for one in value])
        return value


def _word(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CommandError("ERR Lua redis lib command arguments must be strings or integers")
    return number(value)


def _plain(value: object) -> object:
    """For msgpack."""
    if lua51.lua_type(value) == "table":
        table: Any = value
        return [_plain(table[place]) for place in range(1, len(table) + 1)]
    if isinstance(value, float) and value == int(value):
        return int(value)
    return value


def _reply(value: object) -> Reply:
    if value is None or value is False:
        return None
    if isinstance(value, bytes):
        return value
    if isinstance(value, int | float):
        return int(value)  # true is 1
    table: Any = value
    if table[b"err"] is not None:
        return Failure(table[b"err"])
    if table[b"ok"] is not None:
        return Status(table[b"ok"])
    out: list[Reply] = []
    while (one := table[len(out) + 1]) is not None:
        out.append(_reply(one))
    return out


class Scripts:
    """The scripts that one server has loaded."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        self._sources: dict[bytes, bytes] = {}

    def load(self, source: bytes) -> bytes:
        """Its digest."""
        digest = sha1(source, usedforsecurity=False).hexdigest().encode()
        self._sources[digest] = source
        return digest

    def flush(self) -> None:
        """Forget all."""
        self._sources.clear()

    def has(self, digest: bytes) -> bool:
        """Whether it is loaded."""
        return digest.lower() in self._sources

    def run(self, digest: bytes, words: Sequence[bytes], call: Call) -> Reply:
        """EVALSHA: `words` are the number of keys, the keys, and the rest. Raises CommandError."""
        source = self._sources.get(digest.lower())
        if source is None:
            raise CommandError("NOSCRIPT No matching script. Please use EVAL.")
        keys = int(words[0])
        return self._interpreter.run(source, words[1 : 1 + keys], words[1 + keys :], call)
