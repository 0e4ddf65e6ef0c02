"""The writer's book: every life of every key, how it ended, and what the ledger knew of it then.

It watches the simulated server from inside, so it is exact, and depends on no report.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from zlib import crc32

from bridge.redis.protocol.own_keys import Names
from tests.simulation.field_book import FieldBook
from tests.simulation.hints import Hints
from tests.simulation.lives import Fate, Life, Promise
from tests.simulation.redis.keyspace import Database
from tests.simulation.redis.server import Server, Session
from tests.simulation.redis.values import Hash, Reply, SortedSet, Stream
from tests.simulation.redis.watcher import Watcher

NAMES = Names("expiry-bridge", 0)


class Shard:
    """What is known of one shard of the ledger."""

    def __init__(self, names: Names, server: Server) -> None:
        self.names = names
        self.hints = Hints(names.shard)
        """Which claim announces which life."""
        self.gap_start = 0
        """When the bridge began to listen, in Redis's ms: what was overdue then is counted. 0: no gap is open."""
        self._server = server
        self._seen: tuple[int, list[Life]] = (0, [])
        """What the last touch saw gone, by its fence."""

    @property
    def ledger(self) -> dict[bytes, float]:
        """What it holds now."""
        found = self._server.keyspace.databases[0].values.get(self.names.deadlines)
        return found.scores if isinstance(found, SortedSet) else {}

    @property
    def handled_ms(self) -> int:
        """Up to when everything is handled, as the lease says; 0 where it says nothing."""
        lease = self._server.keyspace.databases[0].values.get(self.names.lease)
        return int(lease.get(b"seen_ms", b"0")) if isinstance(lease, Hash) else 0

    def hear(self, script: str, words: Sequence[bytes]) -> None:
        """A script of its epochs has run, called like that."""
        for key in words[3 : 3 + int(words[2])]:
            if key.startswith(self.names.mark_prefix):
                self.hints.marked(key)
        values = self._server.keyspace.databases[0].values
        lease, outbox = values.get(self.names.lease), values.get(self.names.outbox)
        place = lease.get(b"place") if isinstance(lease, Hash) else None
        if script == "acquire.lua" and isinstance(lease, Hash) and b"fence" in lease:
            self.hints.granted(int(lease[b"fence"]), place)
        elif script == "apply.lua":
            self.gap_start = int(words[3 + int(words[2]) :][2])
            if isinstance(outbox, Stream):
                self.hints.applied(outbox)
        elif script == "fields.lua" and isinstance(outbox, Stream):
            self.hints.passed(outbox)
        self.hints.placed(place)

    def saw(self, gone: Sequence[Life]) -> None:
        """A touch, which is made when the former one of its epoch is resolved."""
        fence, seen = self._seen
        if fence == self.hints.fence:
            for life in seen:
                life.sure = True
        self._seen = self.hints.fence, [life for life in gone if life.promise is Promise.RECORDED]


class Book(Watcher):
    """See the module."""

    def __init__(self, server: Server, tell: Callable[[str], None], shards: int = 1) -> None:
        self.lives: dict[bytes, list[Life]] = defaultdict(list)
        self.broken: list[str] = []
        """Rules about keys that a script of the bridge has broken."""
        self.shards = [Shard(NAMES.of(number), server) for number in range(shards)]
        self.noticed: set[tuple[int, int]] = set()
        """Epochs that have noticed that not all was notified: shard and fence."""
        self.elsewhere: list[int] = []
        """When keys of other databases expired."""
        self.forgotten: list[tuple[Life, int]] = []
        """Lives that the ledger knew and, while they went on, knew no longer; and when."""
        self._known: dict[bytes, Life] = {}
        """Those that it knows."""
        self.server = server
        self._tell = tell
        self._dirty: dict[bytes, None] = {}
        self._read: dict[bytes, Reply] = {}
        self._open: list[Life] = []
        """Expired, and the ledger's entry is as it was."""
        self.gone: Sequence[bytes] = ()
        """What the script that has run last saw gone, and due."""
        self.fields: FieldBook | None = None
        """Where fields have deadlines."""

    @property
    def ledger(self) -> dict[bytes, float]:
        """What it holds now."""
        if len(self.shards) == 1:
            return self.shards[0].ledger
        return {key: score for shard in self.shards for key, score in shard.ledger.items()}

    def shard(self, key: bytes) -> Shard:
        """The one that a key is of."""
        return self.shards[crc32(key) % len(self.shards)]

    def alive(self, key: bytes) -> Life | None:
        """The life of the key now, which may be past its deadline."""
        lives = self.lives[key]
        return lives[-1] if lives and lives[-1].fate is Fate.ALIVE else None

    # What happens on the server.

    def ended(self, database: Database, key: bytes, how: str) -> None:
        """See `Watcher`."""
        if database.number and how == "expired":
            self.elsewhere.append(self.server.keyspace.now_ms)
        life = self.alive(key) if _users(database, key) else None
        if life is None:
            return
        entry = self.ledger.get(key)
        life.entry = None if entry is None else int(entry)
        life.ended_ms = self.server.keyspace.now_ms
        life.notified = bool(self.server.keyspace.flags)
        hints = self.shard(key).hints
        life.epoch = hints.shard, hints.fence
        life.fate = Fate.EXPIRED if how == "expired" else Fate.DELETED if how else Fate.REPLACED
        self._tell(f"{how or 'replaced'} {key.decode()} #{life.number} deadline={life.deadline} entry={life.entry}")
        if life.fate is Fate.EXPIRED:
            if life.notified:
                hints.notified(life)
            life.promise = self._promise(life)
            if life.promise is not Promise.NOTHING:
                self._open.append(life)

    def changed(self, database: Database, key: bytes) -> None:
        """See `Watcher`."""
        if _users(database, key):
            self._dirty[key] = None

    def read(self, key: bytes, deadline: Reply) -> None:
        """See `Watcher`."""
        self._read[key] = deadline

    def done(
        self, script: str | None, session: Session | None, reply: Reply = None, words: Sequence[bytes] = ()
    ) -> None:
        """See `Watcher`."""
        dirty, self._dirty = self._dirty, {}
        for key in dirty:
            self._compare(key)
            if self.fields is not None:
                self.fields.changed(key)
            life = self.lives[key][-1] if self.lives[key] else None
            if script is not None and (life is None or life.fate is not Fate.EXPIRED):
                self.broken.append(f"{script} has changed the user's key {key!r}")
        if script == "apply.lua":
            ledger = self.ledger
            for key, deadline in self._read.items():
                life = self.alive(key)
                if life is not None and life.deadline == deadline == ledger.get(key):
                    life.recorded = True
                    self._known[key] = life
        self._read.clear()
        self.gone = []
        if script is not None:
            self._ran(script, reply, words)
            self._settle()
            self._remember()

    def _ran(self, script: str, reply: Reply, words: Sequence[bytes]) -> None:
        leases = {shard.names.lease: shard for shard in self.shards}
        shard = next(
            (leases[word] for word in words if word in leases), None
        )  # a touch names those of others behind it
        if shard is None:
            return
        shard.hear(script, words)
        if script == "fields.lua" and self.fields is not None:
            self.fields.looked(shard, reply)
        elif script == "touch.lua" and isinstance(reply, list):
            self.gone = _gone(reply[6])
            shard.saw([self.lives[key][-1] for key in self.gone if self.lives[key]])

    def resume(self) -> None:
        """Redis has started with other data: what is not there any longer was lost."""
        database = self.server.keyspace.databases[0]
        for key, lives in self.lives.items():
            life = lives[-1] if lives else None
            if life is not None and life.fate is Fate.ALIVE and key not in database.values:
                life.fate, life.ended_ms = Fate.DELETED, self.server.clock_ms
        for key in database.values:
            if _users(database, key):
                self._compare(key)
        if self.fields is not None:
            self.fields.resume()

    def _compare(self, key: bytes) -> None:
        database = self.server.keyspace.databases[0]
        if key not in database.values:
            return
        life, deadline, value = self.alive(key), database.deadlines.get(key), database.values[key]
        values = [value] if isinstance(value, bytes) else []
        if life is not None and life.deadline == deadline:
            if values != life.values[-1:]:
                life.values += values
            return
        now = self.server.keyspace.now_ms
        lives = self.lives[key]
        if life is not None:
            life.fate, life.ended_ms = Fate.REPLACED, now
            entry = self.ledger.get(key)
            life.entry = None if entry is None else int(entry)
        elif lives:
            lives[-1].back_ms = now
        for former in lives:
            if former.promise is Promise.NEARER and not former.left:
                former.promise = Promise.NOTHING
        lives.append(Life(key, len(lives) + 1, deadline, now, values=values))
        self._tell(f"begins {key.decode()} #{len(lives)} deadline={deadline}")

    def _settle(self) -> None:
        """Note which entries have changed."""
        ledger = self.ledger
        for life in self._open:
            if ledger.get(life.key) != life.entry:
                overdue = life.entry is not None and life.entry < self.shard(life.key).gap_start
                life.left, life.unaware = True, not (life.notified or overdue)
                if life.promise is Promise.LATER and (life.key in ledger or life.back_ms is not None):
                    life.promise = Promise.NOTHING
        self._open = [life for life in self._open if not life.left]

    def _remember(self) -> None:
        """What the ledger knows of a life it does not forget before that ends."""
        ledger = self.ledger
        for key, life in list(self._known.items()):
            if life.fate is not Fate.ALIVE or ledger.get(key) != life.deadline:
                del self._known[key]
                if life.fate is Fate.ALIVE:
                    self.forgotten.append((life, self.server.clock_ms))

    def _promise(self, life: Life) -> Promise:
        known, deadline = life.entry, life.deadline
        if known is None or deadline is None:
            return Promise.NOTHING
        if known == deadline and life.ended_ms > deadline:
            return Promise.RECORDED if life.recorded else Promise.NOTHING
        if known == deadline:
            return Promise.NEARER  # Valkey: a TTL in the past
        told = [one for one in self.lives[life.key] if one.recorded and one.deadline == known]
        if not any(self.became(one) is life for one in told):
            return Promise.NOTHING  # the entry is of a life that was deleted
        return Promise.LATER if known < deadline else Promise.NEARER

    def became(self, life: Life) -> Life:
        """The life that it has become, by being replaced."""
        lives = self.lives[life.key]
        place = life.number - 1
        while lives[place].fate is Fate.REPLACED and place + 1 < len(lives):
            place += 1
        return lives[place]


def _gone(sights: Reply) -> list[bytes]:
    """Of what a touch saw: keys that are due, and not there."""
    assert isinstance(sights, list)
    fields = iter(sights)
    seen = zip(*[fields] * 4, strict=True)
    return [key for key, _, state, due in seen if (state, due) == (b"gone", b"1") and isinstance(key, bytes)]


def _users(database: Database, key: bytes) -> bool:
    return database.number == 0 and key.startswith(b"user:")
