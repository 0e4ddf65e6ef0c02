"""Commands on the deadlines of fields of hashes."""

from collections.abc import Sequence

from tests.simulation.redis.hashes import Hashes
from tests.simulation.redis.keyspace import Database, Keyspace
from tests.simulation.redis.kinds import Kind
from tests.simulation.redis.strings import whole
from tests.simulation.redis.values import CommandError, Hash, Reply

Words = Sequence[bytes]
NO_FIELD, NO_DEADLINE, DONE, DELETED = -2, -1, 1, 2


class FieldDeadlines:
    """See the module."""

    def __init__(self, keyspace: Keyspace, kind: Kind, hashes: Hashes) -> None:
        self._keys = keyspace
        self._kind = kind
        self._hashes = hashes

    # Writes.

    def hexpire(self, database: Database, words: Words) -> Reply:
        """HEXPIRE key s FIELDS n field+."""
        return self._give(database, words, self._keys.now_ms + 1000 * _moment(words[1]))

    def hpexpire(self, database: Database, words: Words) -> Reply:
        """HPEXPIRE key ms FIELDS n field+."""
        return self._give(database, words, self._keys.now_ms + _moment(words[1]))

    def hexpireat(self, database: Database, words: Words) -> Reply:
        """HEXPIREAT key s FIELDS n field+."""
        return self._give(database, words, 1000 * _moment(words[1]))

    def hpexpireat(self, database: Database, words: Words) -> Reply:
        """HPEXPIREAT key ms FIELDS n field+."""
        return self._give(database, words, _moment(words[1]))

    def _give(self, database: Database, words: Words, deadline: int) -> Reply:
        key, names = words[0], _names(words[2:])
        found = self._keys.get(database, key, Hash)
        if found is None:
            return [NO_FIELD for _ in names]
        there = [name for name in dict.fromkeys(names) if self._hashes.is_there(found, name)]
        if deadline > self._keys.now_ms:
            reply: list[Reply] = [DONE if name in there else NO_FIELD for name in names]
            if there:
                database.timed = True
                found.deadlines |= dict.fromkeys(there, deadline)
                self._keys.changed(database, key)
                self._keys.notify("h", "hexpire", key, database)
            return reply
        if there:
            self._keys.drop_fields(database, key, found, there, self._kind.field_past)
        return [
            DELETED if name in there and name not in names[:place] else NO_FIELD for place, name in enumerate(names)
        ]

    def hpersist(self, database: Database, words: Words) -> Reply:
        """HPERSIST key FIELDS n field+."""
        key, names = words[0], _names(words[1:])
        found = self._keys.get(database, key, Hash)
        if found is None:
            return [NO_FIELD for _ in names]
        reply: list[Reply] = []
        for name in names:
            there = name in found and not self._hashes.lapsed(found, (name,))
            timed = there and found.deadlines.pop(name, None) is not None
            reply.append(DONE if timed else NO_DEADLINE if there else NO_FIELD)
        if DONE in reply:
            self._keys.changed(database, key)
            self._keys.notify("h", "hpersist", key, database)
        return reply

    # Reads.

    def hpexpiretime(self, database: Database, words: Words) -> Reply:
        """HPEXPIRETIME key FIELDS n field+."""
        found = self._keys.get(database, words[0], Hash)
        return [self._deadline(found, name) for name in _names(words[1:])]

    def hexpiretime(self, database: Database, words: Words) -> Reply:
        """HEXPIRETIME key FIELDS n field+."""
        found = self._keys.get(database, words[0], Hash)
        deadlines = [self._deadline(found, name) for name in _names(words[1:])]
        return [(deadline + 999) // 1000 if deadline > 0 else deadline for deadline in deadlines]

    def hpttl(self, database: Database, words: Words) -> Reply:
        """HPTTL key FIELDS n field+."""
        return list[Reply](self._ttls(database, words))

    def httl(self, database: Database, words: Words) -> Reply:
        """HTTL key FIELDS n field+."""
        return [(ttl + 999) // 1000 if ttl > 0 else ttl for ttl in self._ttls(database, words)]

    def _ttls(self, database: Database, words: Words) -> list[int]:
        found, now = self._keys.get(database, words[0], Hash), self._keys.now_ms
        deadlines = [self._deadline(found, name) for name in _names(words[1:])]
        return [deadline - now if deadline >= 0 else deadline for deadline in deadlines]

    def _deadline(self, found: Hash | None, name: bytes) -> int:
        if found is None or name not in found:
            return NO_FIELD
        deadline = found.deadlines.get(name, NO_DEADLINE)
        # To Redis a field is gone at its very deadline here, and nowhere else.
        over = self._keys.now_ms + self._kind.fields_go_when_used
        return NO_FIELD if NO_DEADLINE < deadline < over else deadline


def _moment(word: bytes) -> int:
    if (moment := whole(word)) < 0:
        raise CommandError("ERR invalid expire time, must be >= 0")
    return moment


def _names(words: Words) -> Words:
    """What stands behind FIELDS, and how many."""
    if words[0].upper() != b"FIELDS" or whole(words[1]) != len(words) - 2 or not words[2:]:
        raise CommandError("ERR The `numfields` parameter must match the number of arguments")
    return words[2:]
