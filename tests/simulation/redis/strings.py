"""Commands on strings and on keys of any kind: SET and its kin, TTLs, RENAME, COPY, SCAN."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from zlib import crc32

from tests.simulation.redis.keyspace import Database, Keyspace
from tests.simulation.redis.kinds import Kind
from tests.simulation.redis.values import OK, CommandError, Hash, Reply, Status, clone, type_name

Words = Sequence[bytes]
SYNTAX = "ERR syntax error"
NOT_A_NUMBER = "ERR value is not an integer or out of range"
_UNITS = {b"EX": (1000, False), b"PX": (1, False), b"EXAT": (1000, True), b"PXAT": (1, True)}


def whole(word: bytes) -> int:
    """Raises CommandError where it is none."""
    try:
        return int(word)
    except ValueError:
        raise CommandError(NOT_A_NUMBER) from None


class Strings:
    """See the module."""

    def __init__(self, keyspace: Keyspace, kind: Kind) -> None:
        self._keys = keyspace
        self._kind = kind

    # Strings.

    def set(self, database: Database, words: Words) -> Reply:
        """SET key value [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL] [NX | XX] [GET]."""
        key, value, *options = words
        deadline: int | None = None
        keep = only_new = only_old = False
        while options:
            name = options.pop(0).upper()
            if name in _UNITS:
                deadline = self._deadline(name, options.pop(0), "set")
            elif name == b"KEEPTTL":
                keep = True
            elif name in {b"NX", b"XX"}:
                only_new, only_old = name == b"NX", name == b"XX"
            else:
                raise CommandError(SYNTAX)
        there = self._keys.alive(database, key)
        if (there and only_new) or (not there and only_old):
            return None
        if deadline is not None and deadline <= self._keys.now_ms and self._kind.past == "expired":
            if there:
                self._keys.expire(database, key, written=True)  # Valkey 9 does not even store it
            return OK
        self._store(database, key, value, keep=keep)
        self._keys.changed(database, key)
        self._keys.notify("$", "set", key, database)
        if deadline is not None:
            self._give(database, key, deadline)
        return OK

    def append(self, database: Database, words: Words) -> Reply:
        """APPEND key value."""
        former = self._keys.get(database, words[0], bytes) or b""
        self._store(database, words[0], former + words[1], keep=True)
        self._keys.changed(database, words[0])
        self._keys.notify("$", "append", words[0], database)
        return len(former) + len(words[1])

    def strlen(self, database: Database, words: Words) -> Reply:
        """STRLEN key."""
        return len(self._keys.get(database, words[0], bytes) or b"")

    def setex(self, database: Database, words: Words) -> Reply:
        """SETEX key s value."""
        self._deadline(b"EX", words[1], "setex")
        return self.set(database, (words[0], words[2], b"EX", words[1]))

    def psetex(self, database: Database, words: Words) -> Reply:
        """PSETEX key ms value."""
        self._deadline(b"PX", words[1], "psetex")
        return self.set(database, (words[0], words[2], b"PX", words[1]))

    def get(self, database: Database, words: Words) -> Reply:
        """GET key."""
        return self._keys.get(database, words[0], bytes)

    def getdel(self, database: Database, words: Words) -> Reply:
        """GETDEL key."""
        value = self._keys.get(database, words[0], bytes)
        if value is not None:
            self._keys.delete(database, words[0])
        return value

    def getex(self, database: Database, words: Words) -> Reply:
        """GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]."""
        key, *options = words
        value = self._keys.get(database, key, bytes)
        if value is None or not options:
            return value
        if options[0].upper() == b"PERSIST":
            self.persist(database, (key,))
        else:
            deadline = self._deadline(options[0].upper(), options[1], "getex")
            if deadline <= self._keys.now_ms and options[0].upper().endswith(b"AT"):
                self._end(database, key)
            else:
                self._keys.changed(database, key)
                self._give(database, key, deadline)
        return value

    # Keys.

    def delete(self, database: Database, words: Words) -> Reply:
        """DEL, UNLINK."""
        return sum(self._keys.delete(database, key) for key in words)

    def exists(self, database: Database, words: Words) -> Reply:
        """EXISTS."""
        return sum(self._keys.alive(database, key) for key in words)

    def type(self, database: Database, words: Words) -> Reply:
        """TYPE."""
        return Status(type_name(database.values[words[0]]) if self._keys.alive(database, words[0]) else b"none")

    def rename(self, database: Database, words: Words) -> Reply:
        """RENAME key other."""
        key, other = words
        if not self._keys.alive(database, key):
            raise CommandError("ERR no such key")
        if key == other:
            return OK
        value, deadline = database.values[key], database.deadlines.get(key)
        if self._keys.alive(database, other):
            self._keys.drop(database, other)
        self._keys.on_end(database, key, "rename_from")
        del database.values[key]
        database.deadlines.pop(key, None)
        database.values[other] = value
        if deadline is not None:
            database.deadlines[other] = deadline
        self._keys.changed(database, key)
        self._keys.changed(database, other)
        self._keys.notify("g", "rename_from", key, database)
        self._keys.notify("g", "rename_to", other, database)
        return OK

    def copy(self, database: Database, words: Words) -> Reply:
        """COPY key other [REPLACE]."""
        key, other, *options = words
        if key == other:
            raise CommandError("ERR source and destination objects are the same")
        if not self._keys.alive(database, key):
            return 0
        if self._keys.alive(database, other):
            if not options:
                return 0
            self._keys.drop(database, other)
        database.values[other] = copied = clone(database.values[key])
        if isinstance(copied, Hash) and not self._kind.fields_go_when_used:
            for name in self._keys.lapsed(copied):
                copied.drop(name)
        if key in database.deadlines:
            database.deadlines[other] = database.deadlines[key]
        self._keys.changed(database, other)
        self._keys.notify("g", "copy_to", other, database)
        return 1

    # Deadlines.

    def expire(self, database: Database, words: Words) -> Reply:
        """EXPIRE key s."""
        return self._expire(database, words[0], self._deadline(b"EX", words[1], "expire", negative=True))

    def pexpire(self, database: Database, words: Words) -> Reply:
        """PEXPIRE key ms."""
        return self._expire(database, words[0], self._deadline(b"PX", words[1], "pexpire", negative=True))

    def expireat(self, database: Database, words: Words) -> Reply:
        """EXPIREAT key s."""
        return self._expire(database, words[0], 1000 * whole(words[1]))

    def pexpireat(self, database: Database, words: Words) -> Reply:
        """PEXPIREAT key ms."""
        return self._expire(database, words[0], whole(words[1]))

    def persist(self, database: Database, words: Words) -> Reply:
        """PERSIST key."""
        key = words[0]
        if not self._keys.alive(database, key) or key not in database.deadlines:
            return 0
        del database.deadlines[key]
        self._keys.changed(database, key)
        self._keys.notify("g", "persist", key, database)
        return 1

    def pexpiretime(self, database: Database, words: Words) -> Reply:
        """PEXPIRETIME key."""
        if not self._keys.alive(database, words[0]):
            return -2
        return database.deadlines.get(words[0], -1)

    def pttl(self, database: Database, words: Words) -> Reply:
        """PTTL key."""
        deadline = self.pexpiretime(database, words)
        assert isinstance(deadline, int)
        return max(deadline - self._keys.now_ms, 0) if deadline >= 0 else deadline

    def _expire(self, database: Database, key: bytes, deadline: int) -> Reply:
        if not self._keys.alive(database, key):
            return 0
        if deadline <= self._keys.now_ms:
            self._end(database, key)
        else:
            self._keys.changed(database, key)
            self._give(database, key, deadline)
        return 1

    def _end(self, database: Database, key: bytes) -> None:
        """A TTL in the past."""
        if self._kind.past == "expired":
            self._keys.expire(database, key, written=True)
        else:
            self._keys.delete(database, key)

    def _give(self, database: Database, key: bytes, deadline: int) -> None:
        database.deadlines[key] = deadline
        self._keys.notify("g", "expire", key, database)

    def _store(self, database: Database, key: bytes, value: bytes, *, keep: bool) -> None:
        database.values[key] = value
        if not keep:
            database.deadlines.pop(key, None)

    def _deadline(self, unit: bytes, word: bytes, command: str, *, negative: bool = False) -> int:
        factor, absolute = _UNITS[unit]
        amount = whole(word)
        if amount <= 0 and not negative:
            raise CommandError(f"ERR invalid expire time in '{command}' command")
        return amount * factor + (0 if absolute else self._keys.now_ms)

    # All keys.

    def scan(self, database: Database, words: Words) -> Reply:
        """SCAN cursor [COUNT n] [MATCH pattern]: each key that is there all the time comes at least once."""
        words, kind = _of_type(words)
        start, count, matches = scan_options(words)
        page, following = scanned(list(database.values), start, count)
        looked = page if self._kind.scan_expires_all else [key for key in page if matches(key)]
        alive = [key for key in looked if self._keys.alive(database, key)]
        found = [key for key in alive if matches(key) and kind in {None, type_name(database.values[key])}]
        return [following, list[Reply](found)]

    def flush(self, database: Database, _: Words) -> Reply:
        """FLUSHDB. Nothing is notified."""
        for key in list(database.values):
            self._keys.drop(database, key)
        self._keys.invalidate_all()
        return OK

    def size(self, database: Database, _: Words) -> Reply:
        """DBSIZE."""
        return len(database.values)


def _of_type(words: Words) -> tuple[Words, bytes | None]:
    """The words without TYPE, and what that asks for."""
    for place, word in enumerate(words):
        if place % 2 and word.upper() == b"TYPE":
            return [*words[:place], *words[place + 2 :]], words[place + 1].lower()
    return words, None


def scan_options(words: Words) -> tuple[int, int, Callable[[bytes], bool]]:
    """The cursor, the count, and what tells whether a name matches."""
    start, count, pattern = whole(words[0]), 10, b"*"
    for name, value in zip(words[1::2], words[2::2], strict=True):
        if name.upper() == b"COUNT":
            count = whole(value)
        elif name.upper() == b"MATCH":
            pattern = value
        else:
            raise CommandError(SYNTAX)
    return start, count, matcher(pattern)


def scanned(names: Sequence[bytes], start: int, count: int) -> tuple[list[bytes], bytes]:
    """A page of about `count` names in an order that does not depend on what else is there, and the next cursor."""
    places = sorted((crc32(name) + 1, name) for name in names)
    rest = [(place, name) for place, name in places if place >= start]
    page = rest[:count]
    if len(rest) <= count:
        return [name for _, name in page], b"0"
    last = page[-1][0]
    page += [one for one in rest[count:] if one[0] == last]
    following = next((place for place, _ in rest if place > last), 0)
    return [name for _, name in page], b"%d" % following


@lru_cache(maxsize=100)
def matcher(pattern: bytes) -> Callable[[bytes], bool]:
    """A function of a name: Redis's globs, of which the bridge's own are `*`, `?`, classes, and escapes."""
    if pattern == b"*":
        return lambda _: True
    out, i, text = [], 0, pattern.decode("latin-1")
    while i < len(text):
        char = text[i]
        if char == "\\" and i + 1 < len(text):
            i += 1
            out.append(re.escape(text[i]))
        elif char == "*":
            out.append(".*")
        elif char == "?":
            out.append(".")
        elif char == "[" and "]" in text[i:]:
            end = text.index("]", i)
            out.append(f"[{text[i + 1 : end]}]")
            i = end
        else:
            out.append(re.escape(char))
        i += 1
    compiled = re.compile("".join(out), re.DOTALL)
    return lambda name: compiled.fullmatch(name.decode("latin-1")) is not None
