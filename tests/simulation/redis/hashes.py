"""Commands on hashes: those that the bridge's scripts and commands use.

A field past its deadline is there until the active cycle finds it, or somebody uses it; reads do not show it. Redis
lets it go where it is looked at by its name, and a write takes it for one that is there. On Valkey a read changes
nothing, and for a write it is not there.
"""

from collections.abc import Iterable, Sequence

from tests.simulation.redis.keyspace import Database, Keyspace
from tests.simulation.redis.kinds import Kind
from tests.simulation.redis.strings import scan_options, whole
from tests.simulation.redis.values import Hash, Reply

Words = Sequence[bytes]
_NOTHING = Hash()


class Hashes:
    """See the module."""

    def __init__(self, keyspace: Keyspace, kind: Kind) -> None:
        self._keys = keyspace
        self._kind = kind

    # Writes.

    def hset(self, database: Database, words: Words) -> Reply:
        """HSET key (field value)+."""
        found, new = self._keys.make(database, words[0], Hash), 0
        if found.deadlines and not self._kind.fields_go_when_used:
            self._end_lapsed(database, words[0], found, words[1::2])
        for name, value in zip(words[1::2], words[2::2], strict=True):
            new += name not in found
            found[name] = value
            found.deadlines.pop(name, None)
        self._keys.changed(database, words[0])
        self._keys.notify("h", "hset", words[0], database)
        return new

    def _end_lapsed(self, database: Database, key: bytes, found: Hash, names: Iterable[bytes]) -> None:
        """Those that are to be written: the hash stays, whatever is left of it."""
        if past := self.lapsed(found, names):
            for name in past:
                found.drop(name)
            self._keys.notify("h", "hexpired", key, database)

    def hdel(self, database: Database, words: Words) -> Reply:
        """HDEL key field+."""
        found = self._keys.get(database, words[0], Hash)
        if found is None:
            return 0
        names = [name for name in dict.fromkeys(words[1:]) if self.is_there(found, name)]
        if names:
            self._keys.drop_fields(database, words[0], found, names, "hdel")
        return len(names)

    def hincrby(self, database: Database, words: Words) -> Reply:
        """HINCRBY key field n."""
        found = self._keys.make(database, words[0], Hash)
        if self.lapsed(found, words[1:2]):
            if self._kind.fields_go_when_used:
                self._keys.expire_fields(database, words[0], found, words[1:2])
                found = self._keys.make(database, words[0], Hash)
            else:
                self._end_lapsed(database, words[0], found, words[1:2])
        total = whole(found.get(words[1], b"0")) + whole(words[2])
        found[words[1]] = b"%d" % total
        self._keys.changed(database, words[0])
        self._keys.notify("h", "hincrby", words[0], database)
        return total

    # Reads of fields by their names.

    def hget(self, database: Database, words: Words) -> Reply:
        """HGET key field."""
        return self._used(database, words[0], words[1:2]).get(words[1])

    def hexists(self, database: Database, words: Words) -> Reply:
        """HEXISTS key field."""
        return int(words[1] in self._used(database, words[0], words[1:2]))

    def hmget(self, database: Database, words: Words) -> Reply:
        """HMGET key field+."""
        key, *names = words
        found = self._keys.get(database, key, Hash)
        if found is not None and len(found) == 1 and self._goes(found, names):
            self._keys.drop(database, key)  # Redis says nothing then
            return [None for _ in names]
        found = self._used(database, key, names)
        return [found.get(name) for name in names]

    def hstrlen(self, database: Database, words: Words) -> Reply:
        """HSTRLEN key field."""
        return len(self._used(database, words[0], words[1:2]).get(words[1], b""))

    def _used(self, database: Database, key: bytes, names: Words) -> Hash:
        """The hash, where none of these fields is past its deadline."""
        found = self._keys.get(database, key, Hash)
        if found is None:
            return _NOTHING
        if not (past := self.lapsed(found, names)):
            return found
        if self._goes(found, names):
            self._keys.expire_fields(database, key, found, past)
            return found
        return _without(found, past)

    def _goes(self, found: Hash, names: Words) -> list[bytes]:
        """Of these fields those that go now."""
        keys = self._keys
        if not self._kind.fields_go_when_used or keys.expiry_paused or keys.replica:
            return []
        return self.lapsed(found, names)

    # Reads of the whole hash.

    def hgetall(self, database: Database, words: Words) -> Reply:
        """HGETALL key."""
        return [word for pair in self._shown(database, words[0]).items() for word in pair]

    def hkeys(self, database: Database, words: Words) -> Reply:
        """HKEYS key."""
        return list[Reply](self._shown(database, words[0]))

    def hscan(self, database: Database, words: Words) -> Reply:
        """HSCAN key cursor [COUNT n] [NOVALUES]: all at once."""
        bare = words[-1].upper() == b"NOVALUES"
        _, _, matches = scan_options(words[1:-1] if bare else words[1:])
        shown = {name: value for name, value in self._shown(database, words[0]).items() if matches(name)}
        return [b"0", list[Reply](shown) if bare else [word for pair in shown.items() for word in pair]]

    def hlen(self, database: Database, words: Words) -> Reply:
        """HLEN key: it counts what is past its deadline, too."""
        return len(self._keys.get(database, words[0], Hash) or ())

    def _shown(self, database: Database, key: bytes) -> Hash:
        found = self._keys.get(database, key, Hash)
        if found is None:
            return _NOTHING
        past = self._keys.lapsed(found) if found.deadlines else []
        return _without(found, past) if past else found

    # In general.

    def lapsed(self, found: Hash, names: Iterable[bytes]) -> list[bytes]:
        """Of these fields those that are past their deadlines, each once."""
        if not found.deadlines:
            return []
        now = self._keys.now_ms
        return [name for name in dict.fromkeys(names) if found.deadlines.get(name, now) < now]

    def is_there(self, found: Hash, name: bytes) -> bool:
        """Whether it is, for a write."""
        return name in found and (self._kind.fields_go_when_used or not self.lapsed(found, (name,)))


def _without(found: Hash, names: Sequence[bytes]) -> Hash:
    return Hash({name: value for name, value in found.items() if name not in names})
