"""What the commands of a replication stream do to the lives of keys: one table.

Redis replicates what a command did: deadlines are absolute, and no script is among them. A command that is not in the
table may do anything; then nothing is concluded from the stream. Pure.
"""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from types import MappingProxyType

Command = Sequence[bytes]


class Effect(Enum):
    """What a command does to the life of a key."""

    NONE = auto()
    """It changes a value, or no key at all. A key that it makes has no TTL."""
    MAY_END = auto()
    """The key is gone if nothing is left in it, which the stream does not say."""
    REPLACES = auto()
    """The key has another value and no TTL; or it is gone, if there was nothing to store."""
    STORES = auto()
    """As REPLACES; only if a word STORE says where."""
    SETS = auto()
    """It may set a deadline: see `Journal`."""
    ENDS = auto()
    """The key is gone: it was deleted, or has expired."""
    MOVES = auto()
    """The key goes on under another name, or in another database."""
    SELECTS = auto()
    """What follows is about another database."""
    DESTROYS = auto()
    """Keys are gone, or elsewhere, and the stream does not say which; in a cluster, slots are coming."""


def _words(text: str) -> list[bytes]:
    return text.encode().split()


_NONE = _words(
    "APPEND BITFIELD DECR DECRBY INCR INCRBY SETBIT SETRANGE SETNX MSETNX"
    " LINSERT LPUSH LPUSHX LSET RPUSH RPUSHX SADD GEOADD ZADD ZINCRBY"
    " HINCRBY HINCRBYFLOAT HMSET HPERSIST HSET HSETNX"
    " XACK XACKDEL XADD XAUTOCLAIM XCFGSET XCLAIM XDEL XDELEX XGROUP XREADGROUP XSETID XTRIM"
    " PFADD PFCOUNT PFDEBUG PFMERGE VADD VSETATTR"
    " EXEC FUNCTION MULTI PING PUBLISH REPLCONF SCRIPT SPUBLISH"
)
_MAY_END = _words(
    "LMOVE LMPOP LPOP LREM LTRIM RPOP RPOPLPUSH SMOVE SPOP SREM"
    " ZMPOP ZPOPMAX ZPOPMIN ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE"
    " HDEL HEXPIRE HEXPIREAT HGETDEL HGETEX HPEXPIRE HPEXPIREAT HSETEX VREM"
)
_REPLACES = _words(
    "BITOP GEOSEARCHSTORE GETSET MSET SDIFFSTORE SINTERSTORE SUNIONSTORE ZDIFFSTORE ZINTERSTORE ZRANGESTORE ZUNIONSTORE"
)
_BY_NAME: Mapping[bytes, Effect] = MappingProxyType(
    {
        **dict.fromkeys(_NONE, Effect.NONE),
        **dict.fromkeys(_MAY_END, Effect.MAY_END),
        **dict.fromkeys(_REPLACES, Effect.REPLACES),
        **dict.fromkeys(_words("GEORADIUS GEORADIUSBYMEMBER SORT"), Effect.STORES),
        **dict.fromkeys(_words("MSETEX PERSIST PEXPIREAT RESTORE SET"), Effect.SETS),
        **dict.fromkeys(_words("DEL UNLINK"), Effect.ENDS),
        **dict.fromkeys(_words("COPY MOVE RENAME RENAMENX"), Effect.MOVES),
        b"SELECT": Effect.SELECTS,
        **dict.fromkeys(_words("FLUSHALL FLUSHDB RESTORE-ASKING SWAPDB"), Effect.DESTROYS),
    }
)


def effect(name: bytes) -> Effect | None:
    """What a command does, by its name in capitals; None: it may do anything."""
    return _BY_NAME.get(name)


def ending(name: bytes, command: Command) -> Sequence[bytes]:
    """The keys that a command of `MAY_END` may have ended."""
    if name in {b"LMPOP", b"ZMPOP"}:
        return command[2 : 2 + int(command[1])]
    return command[1:2]


def replaced(name: bytes, command: Command) -> Sequence[bytes]:
    """The keys that a command of `REPLACES` or `STORES` has replaced."""
    if name == b"MSET":
        return command[1::2]
    if effect(name) is Effect.STORES:
        words = [word.upper() for word in command]
        return [command[at + 1] for at, word in enumerate(words[2:-1], 2) if word in {b"STORE", b"STOREDIST"}]
    return command[2:3] if name == b"BITOP" else command[1:2]


def deadlines(name: bytes, command: Command) -> Sequence[tuple[bytes, int | None]] | None:
    """Keys and deadlines in ms (None: no TTL) that a command of `SETS` has set; None: it is of a form unknown here.

    None of them where a TTL stays as it is. Raises ValueError or IndexError.
    """
    key = command[1]
    if name == b"PEXPIREAT":
        return [(key, int(command[2]))]
    if name == b"PERSIST":
        return [(key, None)]
    if name == b"MSETEX":
        return _many(command)
    if name == b"SET":
        return _set(key, [word.upper() for word in command[3:]])
    options = [word.upper() for word in command[4:]]
    return [(key, int(command[2]) or None)] if b"ABSTTL" in options or not int(command[2]) else None


def _set(key: bytes, options: Sequence[bytes]) -> Sequence[tuple[bytes, int | None]] | None:
    if b"PXAT" in options:
        return [(key, int(options[options.index(b"PXAT") + 1]))]
    if b"KEEPTTL" in options:
        return []
    return None if {b"EX", b"PX", b"EXAT"} & set(options) else [(key, None)]


def _many(command: Command) -> Sequence[tuple[bytes, int | None]] | None:
    count = int(command[1])
    keys, options = command[2 : 2 + 2 * count : 2], [word.upper() for word in command[2 + 2 * count :]]
    if b"PXAT" in options:
        deadline = int(options[options.index(b"PXAT") + 1])
        return [(key, deadline) for key in keys]
    if b"KEEPTTL" in options:
        return []
    return None if {b"EX", b"PX", b"EXAT"} & set(options) else [(key, None) for key in keys]
