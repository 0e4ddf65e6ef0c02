"""The anchor of a place: a moment at which all streams and counters of a server belong together.

It is a touch whose mark is back. Its script has read the position of Redis's replication stream, and Redis's counters
at that position. It is also known how many notifications the bridge had heard. So the replication backlog from there on
shows which notifications were missed (`bridge/redis/backlog`), and Redis's counters show whether that is all. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Measured:
    """What Redis reports about itself in a script, just before that script's mark (`measured.lua`)."""

    replid: str
    """The id of its replication stream."""
    offset: int
    """Length of that stream in bytes, before those of the script itself."""
    run_id: str
    expired: int
    """Keys that it has expired, in all databases."""
    evicted: int
    growing: tuple[int, ...]
    """Other counters that only grow: if one has shrunk, all of them began anew."""
    now_ms: int
    """Its clock."""

    @classmethod
    def of(cls, reply: Sequence[bytes | int]) -> Self | None:
        """What a script has read; None where Redis does not report all of it, or was not asked."""
        if not reply:
            return None
        try:
            replid, run_id, *numbers = (word.decode() if isinstance(word, bytes) else str(word) for word in reply)
            offset, now_ms, expired, evicted, *growing = map(int, numbers)
        except ValueError:
            return None
        ids = replid.isalnum() and run_id.isalnum()
        return cls(replid, offset, run_id, expired, evicted, tuple(growing), now_ms) if ids else None

    def words(self) -> list[str]:
        """The inverse of `of`."""
        numbers = (self.offset, self.now_ms, self.expired, self.evicted, *self.growing)
        return [self.replid, self.run_id, *map(str, numbers)]


@dataclass(frozen=True, slots=True)
class Anchor:
    """See the module."""

    mark: bytes
    """That of the touch."""
    heard: int
    """Notifications of expirations before the mark: see `Marks.heard`."""
    word: bytes
    """The command by which Redis replicated an expiration then: DEL or UNLINK."""
    measured: Measured

    @classmethod
    def parse(cls, text: bytes) -> Self | None:
        """The inverse of `bytes`; None if no bridge has written that."""
        mark, _, rest = text.partition(b" ")
        heard, _, rest = rest.partition(b" ")
        word, _, rest = rest.partition(b" ")
        measured = Measured.of(rest.split(b" "))
        return cls(mark, int(heard), word, measured) if mark and heard.isdigit() and measured else None

    def __bytes__(self) -> bytes:
        return b"%b %d %b %b" % (self.mark, self.heard, self.word, " ".join(self.measured.words()).encode())
