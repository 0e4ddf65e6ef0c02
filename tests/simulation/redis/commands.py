"""Which commands a simulated Redis knows, and which of them write."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.simulation.redis.keyspace import Database, Keyspace
from tests.simulation.redis.strings import Strings
from tests.simulation.redis.structures import Hashes, SortedSets, Streams
from tests.simulation.redis.values import CommandError, Reply

Handler = Callable[[Database, Sequence[bytes]], Reply]


@dataclass(frozen=True, slots=True)
class Command:
    """One of them."""

    handle: Handler
    writes: bool = False
    needs_memory: bool = False
    """Refused where there is none left."""


_READS = (
    "get exists type pexpiretime pttl scan hget hexists hmget hgetall zcard zscore zmscore zrange zscan xlen xrange"
    " xinfo size"
)
_FREES = "getdel getex delete expire pexpire expireat pexpireat persist rename flush hdel zrem xdel"
_NEEDS = "set setex psetex copy hset hincrby zadd xadd"
_NAMES = {"delete": ("DEL", "UNLINK"), "flush": ("FLUSHDB",), "size": ("DBSIZE",)}


def commands(keyspace: Keyspace, expired_event: str) -> dict[bytes, Command]:
    """By name."""
    found: dict[bytes, Command] = {}
    rooms = (Strings(keyspace, expired_event), Hashes(keyspace), SortedSets(keyspace), Streams(keyspace))
    for names, writes, needs in ((_READS, False, False), (_FREES, True, False), (_NEEDS, True, True)):
        for name in names.split():
            handler = next(getattr(room, name) for room in rooms if hasattr(room, name))
            for said in _NAMES.get(name, (name.upper(),)):
                found[said.encode()] = Command(handler, writes, needs)
    return found


def unknown(words: Sequence[bytes]) -> CommandError:
    """What Redis says of a command that it does not know: first words of its arguments go along."""
    shown = "".join(f"'{word.decode('latin-1')[:128]}' " for word in words[1:])
    return CommandError(f"ERR unknown command '{words[0].decode('latin-1')[:128]}', with args beginning with: {shown}")
