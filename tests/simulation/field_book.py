"""The book of fields: every life of every field with a deadline, and what each script has done to the field ledger."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgpack

from tests.simulation.field_lives import Claim, End, FieldLife, Notification
from tests.simulation.redis.server import Server
from tests.simulation.redis.values import Hash, Reply, SortedSet, Stream, StreamId

if TYPE_CHECKING:
    from tests.simulation.book import Shard

Index = dict[bytes, int]
"""Deadlines by field."""
ENDS = {"hexpired", "hdel", "del", "expired", "evicted", "rename_from", "rename_to", "copy_to"}
"""Notifications about the end of a field, the end of its hash, or what has taken its place."""


class FieldBook:
    """See the module."""

    def __init__(self, server: Server, shard_of: Callable[[bytes], "Shard"], tell: Callable[[str], None]) -> None:
        self.lives: dict[tuple[bytes, bytes], list[FieldLife]] = defaultdict(list)
        """By hash and field."""
        self.claims: list[Claim] = []
        self.uncounted: list[tuple[int, str]] = []
        """What the ledger knew, that has lapsed, and that was neither claimed nor counted; and when."""
        self.forgotten: list[tuple[int, str]] = []
        """What the ledger knew, and no longer knows, though it lasts; and when."""
        self.told: dict[bytes, list[Notification]] = defaultdict(list)
        """Of each hash: what subscribers were told that is about an end."""
        self.counted = 0
        """As ambiguous."""
        self._server = server
        self._shard_of = shard_of
        self._tell = tell
        self._now_has: dict[bytes, dict[bytes, FieldLife]] = defaultdict(dict)
        """By hash and field: the life that lasts."""
        self._index: dict[bytes, Index] = {}
        """Of each hash, as the last script has left it."""
        self._last: dict[int, StreamId] = defaultdict(lambda: (0, 0))
        """By shard: the last entry of the outbox."""
        self._notify, server.keyspace.tell = server.keyspace.tell, self._notified

    @property
    def _now(self) -> int:
        return self._server.keyspace.now_ms

    # What users and the server do.

    def _notified(self, channel: bytes, key: bytes) -> object:
        """Subscribers are told."""
        if (event := channel.removeprefix(b"__keyevent@0__:").decode()) in ENDS:
            shard = self._shard_of(key)
            self.told[key].append(Notification(event, self._now, (shard.names.shard, shard.hints.fence)))
        return self._notify(channel, key)

    def changed(self, key: bytes) -> None:
        """A key is another one since the last command."""
        value = self._server.keyspace.databases[0].values.get(key)
        there = value if isinstance(value, Hash) else Hash()
        replaced = value is not None and not isinstance(value, Hash)
        if not there.deadlines and key not in self._now_has:
            return
        has = self._now_has[key]
        for name, life in list(has.items()):
            if there.deadlines.get(name) != life.deadline:
                del has[name]
                self._end(life, replaced=replaced, there=name in there)
        for name, deadline in there.deadlines.items():
            if name not in has:
                has[name] = life = FieldLife(key, name, deadline, self._now)
                self.lives[key, name].append(life)
                self._tell(f"begins {key.decode()} {name.decode()} deadline={deadline}")

    def _end(self, life: FieldLife, *, replaced: bool, there: bool) -> None:
        life.ended_ms = self._now
        if there:
            life.end = End.WRITTEN
        elif replaced:
            life.end = End.REPLACED
        else:
            life.end = End.EXPIRED if life.lapsed(self._now) else End.REMOVED
        self._tell(f"{life.end.name.lower()} {life.key.decode()} {life.name.decode()} deadline={life.deadline}")

    # What the bridge does.

    def looked(self, shard: "Shard", reply: Reply) -> None:
        """`fields.lua` has run."""
        if not isinstance(reply, list):
            return
        claimed = {_triple(claim): claim for claim in self._claimed(shard)}
        for claim in claimed.values():
            self._note(claim)
        counted = sum(one for one in _list(reply[7]) if isinstance(one, int))
        self.counted += counted
        left = [life for key in self._hashes(shard) for life in self._left(key) if _triple(life) not in claimed]
        if len(lapsed := [life for life in left if life.lapsed(self._now)]) > counted:
            self.uncounted.append((self._now, f"{counted} counted: {lapsed}"))
        excluded = _list(reply[10])
        self.forgotten += [
            (self._now, f"forgotten: {life}")
            for life in left
            if life not in lapsed and life.end is End.LASTS and life.key not in excluded
        ]

    def _left(self, key: bytes) -> list[FieldLife]:
        """The lives that the ledger has known, and knows no longer, of a hash."""
        former, self._index[key] = self._index.get(key, {}), self.index(key)
        gone = [(name, at) for name, at in former.items() if self._index[key].get(name) != at]
        lives = [self._life(key, name, at) for name, at in gone]
        return [life for life in lives if life is not None]

    def _claimed(self, shard: "Shard") -> Iterator[Claim]:
        values = self._server.keyspace.databases[0].values
        outbox, former = values.get(shard.names.outbox), self._last[shard.names.shard]
        if not isinstance(outbox, Stream) or not outbox.entries or outbox.entries[-1][0] <= former:
            return
        self._last[shard.names.shard], flat = outbox.entries[-1]
        pairs = iter(flat)
        words = iter(msgpack.unpackb(dict(zip(pairs, pairs, strict=True)).get(b"fields", b"\x90"), raw=True))
        for key, name, deadline, via in zip(words, words, words, words, strict=True):
            value = values.get(key)
            lasts = self._now_has.get(key, {}).get(name)
            there = isinstance(value, Hash) and name in value and not (lasts and lasts.deadline <= self._now)
            replaced = value is not None and not isinstance(value, Hash)
            epoch = (shard.names.shard, shard.hints.fence)
            yield Claim(key, name, deadline, via == b"s", self._now, epoch, there, replaced)

    def _note(self, claim: Claim) -> None:
        self.claims.append(claim)
        life = self._life(claim.key, claim.name, claim.deadline)
        if life is not None:
            life.claims.append(claim)
        self._tell(f"claimed {claim.key.decode()} {claim.name.decode()} deadline={claim.deadline} sweep={claim.sweep}")

    def _life(self, key: bytes, name: bytes, deadline: int) -> FieldLife | None:
        """The one that an entry of the ledger is of."""
        lives = [life for life in self.lives[key, name] if life.deadline == deadline]
        return next((life for life in lives if not life.claims), lives[-1] if lives else None)

    # What there is.

    def index(self, key: bytes) -> Index:
        """What the ledger knows of a hash."""
        found = self._server.keyspace.databases[0].values.get(self._shard_of(key).names.field_prefix + key)
        return {name: int(score) for name, score in found.scores.items()} if isinstance(found, SortedSet) else {}

    def timed(self) -> list[FieldLife]:
        """The lives that last, and have not lapsed."""
        now = self._now
        return [life for has in self._now_has.values() for life in has.values() if not life.lapsed(now)]

    def unrecorded(self, most: int) -> list[FieldLife]:
        """Those that last, and the ledger does not know: but for hashes with more fields than are read."""
        values = self._server.keyspace.databases[0].values
        return [
            life
            for life in self.timed()
            if len(values.get(life.key) or ()) <= most * 0.9  # type: ignore[arg-type]
            and self.index(life.key).get(life.name) != life.deadline
        ]

    def overdue(self) -> dict[bytes, Index]:
        """What the ledger knows, and is past its deadline for a while."""
        late = self._now - 20
        found = {key: {name: at for name, at in self.index(key).items() if at < late} for key in self._hashes()}
        return {key: index for key, index in found.items() if index}

    def resume(self) -> None:
        """Redis has started with other data."""
        for key in self._hashes():
            self.changed(key)
        self._last.clear()

    def _hashes(self, shard: "Shard | None" = None) -> list[bytes]:
        return [key for key in self._now_has if shard is None or self._shard_of(key) is shard]


def _triple(of: Claim | FieldLife) -> tuple[bytes, bytes, int]:
    return of.key, of.name, of.deadline


def _list(reply: Reply) -> list[Reply]:
    return reply if isinstance(reply, list) else []
