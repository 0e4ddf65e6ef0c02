"""What really happened on a server, kept past the bridge, and what the bridge made of it.

Every command that begins something begins a *life* of its key, and each life has a *fate*. An expiration is *promised*
if the ledger knew its deadline at that moment. `tests/model` says the same of a model of the server.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from redis.asyncio import Redis

from bridge.expiration import Expiration, Via
from tests.support.harness.user import NAMES

EXPIRED = "expired"
ENDS = {EXPIRED, "del", "rename_from"}
"""Events that end a life, of those that tests here provoke."""

Entries = Mapping[bytes, int]
"""The ledger: deadlines in ms, by key."""


class Fate(Enum):
    """What became of a life."""

    ALIVE = auto()
    REPLACED = auto()
    """By the next life of the key; nobody is told that this one ended."""
    EXPIRED = auto()
    DELETED = auto()
    UNSEEN = auto()
    """Deleted in a gap: it cannot be told from an expiration."""
    SETTLED = auto()
    """The same, and the gap is closed: now it can."""


class Promise(Enum):
    """What is promised of an expiration."""

    RECORDED = auto()
    """To be told, or to be counted as ambiguous where its hint is lost."""
    LATER = auto()
    """The same, unless a later life of the key is recorded before: the ledger knew a nearer deadline of it."""
    NEARER = auto()
    """The same, unless the key is set again before: the ledger knew a later deadline of it."""
    NOTHING = auto()
    """Only that it is told if its hint is handled."""


@dataclass(eq=False, slots=True)
class Life:
    """One life of a key, and its expiration, if that is how it ended."""

    key: bytes
    deadline: int | None
    fate: Fate = Fate.ALIVE
    promise: Promise = Promise.NOTHING
    entry: int | None = None
    """The deadline in the ledger when it expired."""
    recorded: bool = False
    """Whether the ledger knows of this life: a former one may have had the same deadline."""
    lost: bool = False
    """Whether the hint of its end is lost."""
    claims: int = 0

    @property
    def untold(self) -> bool:
        """Whether its expiration was missed, and was not claimed by other means."""
        return self.fate is Fate.EXPIRED and self.lost and not self.claims


class Log:
    """Every notification of the ends of keys, in order: an independent subscriber."""

    def __init__(self, user: Redis) -> None:
        self._user = user
        self._pubsub = user.pubsub()
        self._tokens = 0

    async def open(self) -> None:
        """Begin to listen."""
        await self._pubsub.psubscribe("__keyevent@0__:*")
        await self._pubsub.subscribe("log")
        await self.new()

    async def new(self) -> list[tuple[str, bytes]]:
        """Events and keys of all that was notified since the last call."""
        self._tokens += 1
        token = b"%d" % self._tokens
        await self._user.publish("log", token)
        found: list[tuple[str, bytes]] = []
        while True:
            message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=10)
            if message is None:
                continue
            channel, data = message["channel"].decode(), message["data"]
            if channel == "log":
                if data == token:
                    return found
            elif (event := channel.partition(":")[2]) in ENDS and not data.startswith(NAMES.own_prefix):
                found.append((event, data))

    async def close(self) -> None:
        """Stop listening."""
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]


@dataclass(slots=True)
class Chronicle:
    """See the module. Every violation of a promise is an AssertionError that names it."""

    lives: dict[bytes, list[Life]] = field(default_factory=lambda: defaultdict(list))
    stream: deque[Life] = field(default_factory=deque)
    """Whose end is notified, and not handled by the bridge yet."""
    subscribed: bool = False
    """Whether the bridge hears what is notified now."""
    ids: set[str] = field(default_factory=set)
    """Of all claims ever."""

    def alive(self, key: bytes) -> Life | None:
        """The life of the key now, which may be past its deadline."""
        lives = self.lives[key]
        return lives[-1] if lives and lives[-1].fate is Fate.ALIVE else None

    # What happens on the server.

    def began(self, key: bytes, deadline: int | None) -> None:
        """A new life of the key; a former one is replaced."""
        former = self.alive(key)
        if former is not None:
            former.fate = Fate.REPLACED
        for life in self.lives[key]:
            if life.promise is Promise.NEARER:
                life.promise = Promise.NOTHING
        self.lives[key].append(Life(key, deadline))

    def ended(self, event: str, key: bytes, entries: Entries) -> None:
        """Redis has notified that the key is gone; `entries` is the ledger just before."""
        life = self.alive(key)
        assert life is not None, f"{event} of {key!r}, which was not there"
        if event == EXPIRED:
            life.fate, life.entry = Fate.EXPIRED, entries.get(key)
            life.promise = self._promise(life)
        else:
            life.fate = Fate.DELETED
        self.stream.append(life)
        if not self.subscribed:
            self.lose()

    def lose(self) -> None:
        """What was notified and is not handled is lost to the bridge."""
        for life in self.stream:
            life.lost = True
            if life.fate is Fate.DELETED:
                life.fate = Fate.UNSEEN
        self.stream.clear()

    def gap_closed(self) -> None:
        """All that was missed is reconciled."""
        for life in self._all():
            if life.fate is Fate.UNSEEN:
                life.fate = Fate.SETTLED

    # What the bridge made of it.

    def claimed(self, claims: Iterable[Expiration], handled: Sequence[Life]) -> None:
        """One script handled these hints and made these claims."""
        hints = defaultdict[bytes, deque[Life]](deque)
        for life in handled:
            if life.fate is Fate.EXPIRED:
                hints[life.key].append(life)
        for claim in claims:
            assert claim.id not in self.ids, "an id is given once"
            self.ids.add(claim.id)
            deadline = claim.deadline_ms
            assert deadline is None or deadline < claim.observed_ms, "a deadline that is claimed is past"
            if claim.via is Via.NOTIFICATION:
                assert hints[claim.key], f"none is invented: {claim} has no notification"
                told: Life | None = hints[claim.key].popleft()
                assert deadline in {None, *(life.deadline for life in self.lives[claim.key])}, "a deadline of the key"
            else:
                told = self._swept(claim)
            if told is not None:
                told.claims += 1
                assert told.claims == 1, f"an expiration has one id: {told}"
        assert not any(hints.values()), f"every notification of an expiration is a claim: {dict(hints)}"

    def scanned(self, key: bytes, entries: Entries) -> None:
        """The key was read, and recorded."""
        life = self.alive(key)
        if life is not None and life.deadline is not None and entries.get(key) == life.deadline:
            life.recorded = True

    def check(self, before: Entries, after: Entries, ambiguous: int) -> None:
        """The ledger has changed from `before` to `after`, and so many more are counted as ambiguous."""
        for key, deadline in before.items():
            life = self.alive(key)
            if life is not None and life.recorded and life.deadline == deadline:
                assert after.get(key) == deadline, f"what the ledger knows of a life it does not forget: {key!r}"
        gone = [life for life in self._all() if life.untold and after.get(life.key) != life.entry]
        for life in gone:
            if life.promise is Promise.LATER and life.key in after:
                life.promise = Promise.NOTHING
        due = [life for life in gone if life.promise is not Promise.NOTHING]
        assert len(due) <= ambiguous, f"what was recorded is told, or counted: {due}"
        for life in due:
            life.promise = Promise.NOTHING
        for key, deadline in after.items():
            if len(self._of(key, deadline)) == 1:
                self.scanned(key, after)

    def check_quiet(self, entries: Entries) -> None:
        """All is handled, reconciled and swept."""
        assert not self.stream
        open_ = [life for life in self._all() if life.untold and life.promise is not Promise.NOTHING]
        assert not open_, f"what was recorded is told, or counted: {open_}"
        recorded = {key: life.deadline for key in self.lives if (life := self.alive(key)) is not None}
        for key in {*recorded, *entries}:
            # Nobody is told of a SET without a TTL: the former deadline stays until it is past.
            if key not in recorded or recorded[key] is not None:
                assert entries.get(key) == recorded.get(key), "the ledger agrees with the keyspace"

    def _all(self) -> Iterable[Life]:
        return (life for lives in self.lives.values() for life in lives)

    def _promise(self, life: Life) -> Promise:
        known, deadline = life.entry, life.deadline
        if known is None or deadline is None or all(self._fate(one) is not life for one in self._of(life.key, known)):
            return Promise.NOTHING
        if known == deadline:
            return Promise.RECORDED if life.recorded else Promise.NOTHING
        return Promise.LATER if known < deadline else Promise.NEARER

    def _of(self, key: bytes, deadline: int) -> list[Life]:
        return [life for life in self.lives[key] if life.deadline == deadline]

    def _fate(self, life: Life) -> Life:
        """The life that it became by being replaced."""
        lives = self.lives[life.key]
        place = lives.index(life)
        while lives[place].fate is Fate.REPLACED:
            place += 1
        return lives[place]

    def _swept(self, claim: Expiration) -> Life | None:
        """What a claim without a hint tells of: an expiration, or (None) a deletion in a gap that looks like one."""
        assert claim.deadline_ms is not None
        same = self._of(claim.key, claim.deadline_ms)
        ends = [self._fate(life) for life in same]
        expired = [life for life in ends if life.fate is Fate.EXPIRED]
        if expired:
            return expired[-1]
        for life in ends:
            if life.fate in {Fate.UNSEEN, Fate.SETTLED}:
                lives = self.lives[life.key]
                later = lives[lives.index(life) + 1 :]
                if untold := [one for one in later if one.untold]:
                    return untold[0]
                if any(one.fate is Fate.UNSEEN for one in (life, *later)):
                    return None
        raise AssertionError(f"none is invented: {claim} is of {same}, which became {ends}")
