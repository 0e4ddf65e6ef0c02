"""The place: how far a holder has handled the stream of notifications, stored with its claims in one script.

Every subscriber of a node hears the same notifications in the same order. So a standby that has listened since the
place's mark knows exactly which of them are handled and which are not, and goes on from there (`takeover.py`). Pure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple, Self

from bridge.redis.protocol.anchor import Anchor


class Place(NamedTuple):
    """A place in the stream of one ledger."""

    mark: bytes
    """The last mark that was taken from the stream."""
    hints: int
    """How many notifications of any kind were taken after it. Announcements do not count."""
    scope: bytes
    """To which channels and keys this applies (`digest`): a bridge with others counts differently."""
    heard: int = 0
    """Notifications of expirations up to here (`Marks.heard`). Kept with an anchor only."""
    anchor: Anchor | None = None
    """From where a gap after the place can be filled; None if that is not wanted, or not possible."""

    @classmethod
    def parse(cls, text: bytes) -> Self | None:
        """The inverse of `bytes`; None if there is none, or if no bridge has written it."""
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
    """What a batch did that a bridge taking over cannot know otherwise. The batch's own script publishes it."""

    mark: bytes
    """The batch's mark. It left one only if there are keys."""
    place: Place
    """How far the stream was handled with the batch. Later hints were interpreted with the batch known."""
    emptied: bool
    """Whether it removed the last entry of the ledger: Redis then notifies the end of that key."""
    keys: Sequence[bytes]
    """The keys that it made ahead."""


def digest(channels: Iterable[bytes], patterns: Iterable[str]) -> bytes:
    """A short name for what a bridge hears, and which keys it bridges: other patterns need a scan."""
    words = [*sorted(channels), b"", *sorted(pattern.encode() for pattern in patterns)]
    return blake2b(b"\n".join(words), digest_size=6).hexdigest().encode()
