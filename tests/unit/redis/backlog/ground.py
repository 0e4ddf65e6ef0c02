"""A gap by hand: the commands of a replication stream, and what Redis has counted before and after."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from bridge.limits import BacklogLimits
from bridge.redis.backlog.journal import Happened, Journal, Key
from bridge.redis.backlog.translation import Translated, Translator
from bridge.redis.backlog.verdict import Facts, Verdict, judge, unknown
from bridge.redis.protocol.anchor import Anchor, Measured
from bridge.redis.protocol.notifications import channels, elsewhere
from bridge.redis.protocol.own_keys import Names
from bridge.redis.protocol.place import Announcement, Place

NAMES = Names("expiry-bridge", 0)
MARK, END = NAMES.mark(7, 3), NAMES.mark(8, 0)
BEGAN, ENDED = 1_000_000, 1_010_000
"""Redis's clock, in ms."""
MEASURED = Measured("ab" * 20, 5000, "cd" * 20, 100, 3, (1000, 10), BEGAN)
NOW = replace(MEASURED, offset=9000, now_ms=ENDED, growing=(1100, 12))
KINDS = channels(0) | elsewhere(0, 4)
SHORT, FAR = BEGAN + 5_000, ENDED + 60_000


def words(*commands: str | Sequence[bytes]) -> list[Sequence[bytes]]:
    """Commands, as Redis sends them."""
    return [command.encode().split() if isinstance(command, str) else command for command in commands]


@dataclass
class Gap:
    """What nobody has listened to."""

    stream: Sequence[str | Sequence[bytes]]
    """Behind the anchor's mark."""
    expired: int
    """How many Redis says."""
    word: bytes = b"DEL"
    scores: dict[bytes, int] = field(default_factory=dict)
    """Of the ledger's entries."""
    handled: int = 0
    """How many of its expirations the former epoch had handled."""
    matches: Callable[[bytes], bool] = lambda _: True
    now: Measured = NOW
    limits: BacklogLimits = field(default_factory=BacklogLimits)
    claims: Sequence[tuple[bytes, int | None]] = ()
    place_mark: bytes = MARK
    announcements: dict[int, Announcement] = field(default_factory=dict)

    @property
    def anchor(self) -> Anchor:
        """See `Anchor`."""
        return Anchor(MARK, 40, self.word, MEASURED)

    def journal(self) -> Journal:
        """What the stream says."""
        journal = Journal(NAMES, self.anchor, END, self.limits)
        for command in words("MULTI", [b"DEL", MARK], "EXEC", *self.stream):
            assert not journal.take(command)
        assert journal.take([b"DEL", END])
        journal.complete()
        return journal

    def judged(self) -> tuple[Journal, Verdict]:
        """What the verdict is on that."""
        journal = self.journal()
        now = replace(self.now, expired=MEASURED.expired + self.expired)
        scores = {key: self.scores.get(key) for key in unknown(journal)}

        def is_ours(key: Key) -> bool:
            return key[0] == 0 and not key[1].startswith(NAMES.own_prefix) and self.matches(key[1])

        return journal, judge(journal, Facts(self.anchor, now, is_ours, scores, self.claims, self.place_mark))

    def told(self) -> Translated:
        """What an epoch goes on with."""
        journal, verdict = self.judged()
        place = Place(self.place_mark, 2, b"scope", 40 + self.handled, self.anchor)
        return Translator(journal, verdict, place, KINDS).translate(self.announcements)

    def events(self) -> list[tuple[str, str]]:
        """Likewise, event and key, without marks."""
        return [
            (channel.rpartition(b":")[2].decode(), key.decode())
            for channel, key in self.told().hints
            if not key.startswith(NAMES.mark_prefix)
        ]

    def expirations(self) -> list[str]:
        """The keys that count as expired, in the order of the stream."""
        journal, verdict = self.judged()
        return [journal.entries[index].key[1].decode() for index in sorted(verdict.expired)]


def ended(journal: Journal) -> list[bytes]:
    """The keys of the deletions that may be expirations."""
    return [entry.key[1] for entry in journal.entries if entry.what is Happened.ENDED]
