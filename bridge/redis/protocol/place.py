"""The place: how far a holder has handled the stream of notifications, stored with its claims in one script.

Every subscriber of a node hears the same notifications in the same order. So a standby that has listened since the
place's mark knows exactly which of them are handled and which are not, and goes on from there (`takeover.py`). Pure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Self

from bridge.redis.protocol.anchor import Anchor


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the stream of one ledger."""

    mark: bytes
    """The last mark that was taken from the stream."""
    hints: int
    """How many notifications were taken behind it, of any kind. Announcements do not count."""
    scope: bytes
    """Of which channels and keys (`digest`): a bridge with others counts otherwise."""
    heard: int = 0
    """Notifications of expirations up to here (`Marks.heard`). Kept with an anchor only."""
    anchor: Anchor | None = None
    """From where a gap behind the place can be filled; None where that is not wanted, or not possible."""

    @classmethod
    def parse(cls, text: bytes) -> Self | None:
        """The inverse of `bytes`; None where there is none, or somebody else's."""
        mark, _, rest = text.partition(b" ")
        hints, _, rest = rest.partition(b" ")
        if not (mark and hints.isdigit()):
            return None
        scope, _, rest = rest.partition(b" ")
        heard, _, rest = rest.partition(b" ")
        anchor = Anchor.parse(rest) if heard.isdigit() else None
        return cls(mark, int(hints), scope, int(heard) if anchor else 0, anchor)

    def __bytes__(self) -> bytes:
        text = b"%b %d %b" % (self.mark, self.hints, self.scope)
        return text if self.anchor is None else b"%b %d %b" % (text, self.heard, bytes(self.anchor))


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a batch has done that a bridge which takes over cannot know, published by the batch's script itself."""

    mark: bytes
    """That of the batch. It left one only if there are keys."""
    place: Place
    """How far the stream was handled with the batch. Hints behind that were interpreted by whoever knew of it."""
    emptied: bool
    """Whether it removed the last entry of the ledger: Redis then notifies the end of that key."""
    keys: Sequence[bytes]
    """What it made ahead."""


def digest(channels: Iterable[bytes], patterns: Iterable[str]) -> bytes:
    """A short name for what a bridge hears, and what of it is for it: other patterns take a scan."""
    words = [*sorted(channels), b"", *sorted(pattern.encode() for pattern in patterns)]
    return blake2b(b"\n".join(words), digest_size=6).hexdigest().encode()
