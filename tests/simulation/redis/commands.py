"""Which commands a simulated Redis knows, and which of them write."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.simulation.redis.fields import FieldDeadlines
from tests.simulation.redis.hashes import Hashes
from tests.simulation.redis.keyspace import Database, Keyspace
from tests.simulation.redis.kinds import Kind
from tests.simulation.redis.strings import Strings
from tests.simulation.redis.structures import SortedSets, Streams
from tests.simulation.redis.values import CommandError, Reply

Handler = Callable[[Database, Sequence[bytes]], Reply]


@dataclass(frozen=True, slots=True)
class Command:
    """One of them."""

    handle: Handler
    writes: bool = False
    needs_memory: bool = False
    """Refused where there is none left."""

    def reads(self, words: Sequence[bytes]) -> Sequence[bytes]:
        """The keys that it reads, called like that; none where it writes."""
        if self.writes or words[0].upper() in {b"SCAN", b"DBSIZE"}:
            return ()
        if words[0].upper() == b"EXISTS":
            return words[1:]
        return words[2:3] if words[0].upper() == b"XINFO" else words[1:2]


_READS = (
    "get exists type strlen pexpiretime pttl scan hget hexists hmget hgetall hkeys hlen hscan hstrlen zcard zcount"
    " zrank zscore zmscore zrange zscan xlen xrange xinfo size"
)
_FREES = "getdel getex delete expire pexpire expireat pexpireat persist rename flush hdel zrem xdel"
_NEEDS = "set append setex psetex copy hset hincrby zadd xadd"
_FIELD_READS = "hexpiretime hpexpiretime httl hpttl"
_FIELD_FREES = "hpersist"
_FIELD_NEEDS = "hexpire hpexpire hexpireat hpexpireat"
_NAMES = {"delete": ("DEL", "UNLINK"), "flush": ("FLUSHDB",), "size": ("DBSIZE",)}


def commands(keyspace: Keyspace, kind: Kind) -> dict[bytes, Command]:
    """By name."""
    found: dict[bytes, Command] = {}
    hashes = Hashes(keyspace, kind)
    rooms: list[object] = [Strings(keyspace, kind), hashes, SortedSets(keyspace), Streams(keyspace)]
    known = [(_READS, False, False), (_FREES, True, False), (_NEEDS, True, True)]
    if kind.fields:
        rooms.append(FieldDeadlines(keyspace, kind, hashes))
        known += [(_FIELD_READS, False, False), (_FIELD_FREES, True, False), (_FIELD_NEEDS, True, True)]
    for names, writes, needs in known:
        for name in names.split():
            handler = next(getattr(room, name) for room in rooms if hasattr(room, name))
            for said in _NAMES.get(name, (name.upper(),)):
                found[said.encode()] = Command(handler, writes, needs)
    return found


def unknown(words: Sequence[bytes]) -> CommandError:
    """What Redis says of a command that it does not know: first words of its arguments go along."""
    shown = "".join(f"'{word.decode('latin-1')[:128]}' " for word in words[1:])
    return CommandError(f"ERR unknown command '{words[0].decode('latin-1')[:128]}', with args beginning with: {shown}")
