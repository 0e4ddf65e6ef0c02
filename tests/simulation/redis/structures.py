"""Commands on sorted sets and streams: those that the bridge's scripts and commands use."""

from collections.abc import Sequence
from math import inf

from tests.simulation.redis.keyspace import Database, Keyspace
from tests.simulation.redis.strings import scan_options, scanned, whole
from tests.simulation.redis.values import CommandError, Reply, SortedSet, Stream, StreamId, number

Words = Sequence[bytes]
LISTPACK = 128
"""Members up to which a ZSCAN gives all at once, as Redis does."""
_MOST = (1 << 64) - 1


def _bound(word: bytes) -> tuple[float, bool]:
    """The score, and whether it is excluded."""
    excluded = word.startswith(b"(")
    text = word[1:] if excluded else word
    if text in {b"-inf", b"+inf", b"inf"}:
        return (-inf if text == b"-inf" else inf), excluded
    return float(text), excluded


class SortedSets:
    """Commands on sorted sets."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keys = keyspace

    def zadd(self, database: Database, words: Words) -> Reply:
        """ZADD key [NX] (score member)+."""
        rest = list(words[1:])
        only_new = rest[0].upper() == b"NX"
        rest = rest[only_new:]
        found, new, changed = self._keys.make(database, words[0], SortedSet), 0, 0
        for word, member in zip(rest[::2], rest[1::2], strict=True):
            score = _bound(word)[0]
            if member in found.scores and (only_new or found.scores[member] == score):
                continue
            changed += 1
            new += found.add(score, member)
        if changed:
            self._keys.changed(database, words[0])
            self._keys.notify("z", "zadd", words[0], database)
        return new

    def zrem(self, database: Database, words: Words) -> Reply:
        """ZREM key member+."""
        found = self._keys.get(database, words[0], SortedSet)
        if found is None:
            return 0
        gone = sum(found.remove(member) for member in words[1:])
        if gone:
            self._keys.changed(database, words[0])
            self._keys.notify("z", "zrem", words[0], database)
            if not found:
                self._keys.delete(database, words[0])
        return gone

    def zcard(self, database: Database, words: Words) -> Reply:
        """ZCARD key."""
        return len(self._keys.get(database, words[0], SortedSet) or ())

    def zcount(self, database: Database, words: Words) -> Reply:
        """ZCOUNT key low high."""
        found = self._keys.get(database, words[0], SortedSet) or SortedSet()
        return len(self._by_score(found, words[1], words[2]))

    def zrank(self, database: Database, words: Words) -> Reply:
        """ZRANK key member."""
        found = self._keys.get(database, words[0], SortedSet) or SortedSet()
        score = found.scores.get(words[1])
        return None if score is None else found.order.index((score, words[1]))

    def zscore(self, database: Database, words: Words) -> Reply:
        """ZSCORE key member."""
        return self._score(self._keys.get(database, words[0], SortedSet), words[1])

    def zmscore(self, database: Database, words: Words) -> Reply:
        """ZMSCORE key member+."""
        found = self._keys.get(database, words[0], SortedSet)
        return [self._score(found, member) for member in words[1:]]

    def _score(self, found: SortedSet | None, member: bytes) -> bytes | None:
        score = None if found is None else found.scores.get(member)
        return None if score is None else number(score)

    def zrange(self, database: Database, words: Words) -> Reply:
        """ZRANGE key low high [BYSCORE] [LIMIT offset count] [WITHSCORES]."""
        key, low, high, *options = words
        names = [option.upper() for option in options]
        found = self._keys.get(database, key, SortedSet) or SortedSet()
        chosen = self._by_score(found, low, high) if b"BYSCORE" in names else self._by_rank(found, low, high)
        if b"LIMIT" in names:
            place = names.index(b"LIMIT")
            offset, count = whole(options[place + 1]), whole(options[place + 2])
            chosen = chosen[offset:] if count < 0 else chosen[offset : offset + count]
        if b"WITHSCORES" in names:
            return [word for score, member in chosen for word in (member, number(score))]
        return [member for _, member in chosen]

    def _by_rank(self, found: SortedSet, low: bytes, high: bytes) -> list[tuple[float, bytes]]:
        start, stop = whole(low), whole(high)
        start = max(start + len(found), 0) if start < 0 else start
        stop = stop + len(found) if stop < 0 else stop
        return found.order[start : stop + 1]

    def _by_score(self, found: SortedSet, low: bytes, high: bytes) -> list[tuple[float, bytes]]:
        (least, above), (most, below) = _bound(low), _bound(high)
        return [
            (score, member)
            for score, member in found.order
            if (score > least if above else score >= least) and (score < most if below else score <= most)
        ]

    def zscan(self, database: Database, words: Words) -> Reply:
        """ZSCAN key cursor [COUNT n]: a small one at once, a larger one by pages."""
        found = self._keys.get(database, words[0], SortedSet) or SortedSet()
        start, count, matches = scan_options(words[1:])
        if len(found) <= LISTPACK:
            page, following = [member for _, member in found.order], b"0"
        else:
            page, following = scanned(list(found.scores), start, count)
        return [following, [word for name in page if matches(name) for word in (name, number(found.scores[name]))]]


def _id(word: bytes, sequence: int) -> StreamId:
    milliseconds, dash, rest = word.partition(b"-")
    try:
        return int(milliseconds), int(rest) if dash else sequence
    except ValueError:
        raise CommandError("ERR Invalid stream ID specified as stream command argument") from None


def _text(entry: StreamId) -> bytes:
    return b"%d-%d" % entry


class Streams:
    """Commands on streams."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keys = keyspace

    def xadd(self, database: Database, words: Words) -> Reply:
        """XADD key id (field value)+."""
        key, name, *fields = words
        found = self._keys.get(database, key, Stream)
        stream = found if found is not None else Stream()
        if name == b"*":
            now = self._keys.now_ms
            entry = (now, 0) if now > stream.last[0] else (stream.last[0], stream.last[1] + 1)
        elif name.endswith(b"-*"):
            first = whole(name[:-2])
            entry = (first, stream.last[1] + 1 if first == stream.last[0] else 0)
        else:
            entry = _id(name, 0)
        stream.add(entry, list(fields))
        database.values[key] = stream
        self._keys.changed(database, key)
        self._keys.notify("t", "xadd", key, database)
        return _text(entry)

    def xlen(self, database: Database, words: Words) -> Reply:
        """XLEN key."""
        found = self._keys.get(database, words[0], Stream)
        return 0 if found is None else len(found.entries)

    def xrange(self, database: Database, words: Words) -> Reply:
        """XRANGE key low high [COUNT n]."""
        key, low, high, *options = words
        found = self._keys.get(database, key, Stream)
        if found is None:
            return []
        entries = list(found.between(self._low(low), self._high(high)))
        if options:
            entries = entries[: whole(options[1])]
        return [[_text(entry), list[Reply](fields)] for entry, fields in entries]

    def _low(self, word: bytes) -> StreamId:
        if word == b"-":
            return 0, 0
        if word.startswith(b"("):
            first, second = _id(word[1:], 0)
            return (first, second + 1) if second < _MOST else (first + 1, 0)
        return _id(word, 0)

    def _high(self, word: bytes) -> StreamId:
        return (_MOST, _MOST) if word == b"+" else _id(word, _MOST)

    def xdel(self, database: Database, words: Words) -> Reply:
        """XDEL key id+."""
        found = self._keys.get(database, words[0], Stream)
        if found is None:
            return 0
        gone = sum(found.remove(_id(word, 0)) for word in words[1:])
        if gone:
            self._keys.changed(database, words[0])
            self._keys.notify("t", "xdel", words[0], database)
        return gone

    def xinfo(self, database: Database, words: Words) -> Reply:
        """XINFO STREAM key, as far as the scripts ask."""
        found = self._keys.get(database, words[1], Stream)
        if found is None:
            raise CommandError("ERR no such key")
        return [b"length", len(found.entries), b"last-generated-id", _text(found.last)]
