"""The writer's book: every life of every key, how it ended, and what the ledger knew of it then.

It watches the simulated server from inside, so it is exact, and nobody tells it anything. A *life* begins when a key
gets a deadline, or another one, or loses it; it ends when the key expires, is deleted, or begins another life.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from bridge.redis.protocol.own_keys import Names
from tests.simulation.hints import Hints
from tests.simulation.redis.keyspace import Database
from tests.simulation.redis.server import Server, Session
from tests.simulation.redis.values import Hash, Reply, SortedSet, Stream
from tests.simulation.redis.watcher import Watcher

NAMES = Names("expiry-bridge", 0)


class Fate(Enum):
    """What became of a life."""

    ALIVE = auto()
    REPLACED = auto()
    """By the next life of the key, of which the bridge is told, or not."""
    EXPIRED = auto()
    DELETED = auto()


class Promise(Enum):
    """What is promised of an expiration whose notification is lost."""

    RECORDED = auto()
    """It is announced, unless the key is back before anybody looks: then it is counted."""
    LATER = auto()
    """The same, unless the key is back before the entry goes: the ledger knew a nearer deadline of it."""
    NEARER = auto()
    """The same, unless the key is set again before: the ledger knew a later deadline of it."""
    NOTHING = auto()


@dataclass(eq=False, slots=True)
class Life:
    """One life of a key. Times are Redis's, in ms."""

    key: bytes
    number: int
    deadline: int | None
    began_ms: int
    fate: Fate = Fate.ALIVE
    ended_ms: int = 0
    entry: int | None = None
    """What the ledger had for the key when it ended."""
    recorded: bool = False
    """Whether a batch has read this life, and left its deadline in the ledger."""
    promise: Promise = Promise.NOTHING
    left: bool = False
    """Whether the ledger's entry has changed since it expired."""
    unaware: bool = False
    """Whether its entry was changed when it was muted, and no gap was open yet: only `missed` counts it then."""
    sure: bool = False
    """Whether a touch saw it gone and nothing in its place, and that touch was resolved."""
    back_ms: int | None = None
    """When the key was there again."""
    notified: bool = True
    """Whether subscribers were told that it ended."""


class Book(Watcher):
    """See the module."""

    def __init__(self, server: Server, tell: Callable[[str], None]) -> None:
        self.lives: dict[bytes, list[Life]] = defaultdict(list)
        self.broken: list[str] = []
        """Rules about keys that a script of the bridge has broken."""
        self.hints = Hints()
        """Which claim tells of which life."""
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
        self._seen: tuple[int, list[Life]] = (0, [])
        """What the last touch saw gone, by its fence."""

    @property
    def ledger(self) -> dict[bytes, float]:
        """What it holds now."""
        found = self.server.keyspace.databases[0].values.get(NAMES.deadlines)
        return found.scores if isinstance(found, SortedSet) else {}

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
        life.fate = Fate.EXPIRED if how == "expired" else Fate.DELETED if how else Fate.REPLACED
        self._tell(f"{how or 'replaced'} {key.decode()} #{life.number} deadline={life.deadline} entry={life.entry}")
        if life.fate is Fate.EXPIRED:
            if life.notified:
                self.hints.notified(life)
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

    def done(self, script: str | None, session: Session | None, reply: Reply = None) -> None:
        """See `Watcher`."""
        dirty, self._dirty = self._dirty, {}
        for key in dirty:
            self._compare(key)
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
        self._hear(script)
        if script == "touch.lua" and isinstance(reply, list):
            self._saw(reply[6])
        if script is not None:
            self._settle()
            self._remember()

    def _hear(self, script: str | None) -> None:
        values = self.server.keyspace.databases[0].values
        lease, outbox = values.get(NAMES.lease), values.get(NAMES.outbox)
        place = lease.get(b"place") if isinstance(lease, Hash) else None
        if script == "acquire.lua" and isinstance(lease, Hash) and b"fence" in lease:
            self.hints.granted(int(lease[b"fence"]), place)
        elif script == "apply.lua" and isinstance(outbox, Stream):
            self.hints.applied(outbox)
        if script is not None:
            self.hints.placed(place)

    def _saw(self, sights: Reply) -> None:
        """A touch, which is made when the former one of its epoch is resolved."""
        fence, seen = self._seen
        if fence == self.hints.fence:
            for life in seen:
                life.sure = True
        assert isinstance(sights, list)
        fields = iter(sights)
        gone = [key for key, _, state, due in zip(*[fields] * 4, strict=True) if (state, due) == (b"gone", b"1")]
        lives = [self.lives[key][-1] for key in gone if isinstance(key, bytes) and self.lives[key]]
        self._seen = self.hints.fence, [life for life in lives if life.promise is Promise.RECORDED]

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

    def _compare(self, key: bytes) -> None:
        database = self.server.keyspace.databases[0]
        if key not in database.values:
            return
        life, deadline = self.alive(key), database.deadlines.get(key)
        if life is not None and life.deadline == deadline:
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
        lives.append(Life(key, len(lives) + 1, deadline, now))
        self._tell(f"begins {key.decode()} #{len(lives)} deadline={deadline}")

    def _settle(self) -> None:
        """Note which entries have changed."""
        ledger, lease = self.ledger, self.server.keyspace.databases[0].values.get(NAMES.lease)
        gap_open = not isinstance(lease, Hash) or lease.get(b"open") != b"0"
        for life in self._open:
            if ledger.get(life.key) != life.entry:
                life.left, life.unaware = True, not (life.notified or gap_open)
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
        if not any(one.deadline == known and self.became(one) is life for one in self.lives[life.key]):
            return Promise.NOTHING
        return Promise.LATER if known < deadline else Promise.NEARER

    def became(self, life: Life) -> Life:
        """The life that it has become, by being replaced."""
        lives = self.lives[life.key]
        place = life.number - 1
        while lives[place].fate is Fate.REPLACED and place + 1 < len(lives):
            place += 1
        return lives[place]


def _users(database: Database, key: bytes) -> bool:
    return database.number == 0 and not key.startswith(NAMES.own_prefix)
