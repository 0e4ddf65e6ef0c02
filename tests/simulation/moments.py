"""Moments at which it matters most for whoever takes over that the holder dies: just after a batch that did this."""

from collections.abc import Sequence

import msgpack

from bridge.redis.protocol.operations import each
from bridge.redis.protocol.place import Place
from tests.simulation.book import Book
from tests.simulation.redis.values import Reply

CLAIMED = "a batch that claims a key and has made it ahead"
AGAIN = "a batch that makes ahead what is ahead"
LEFT = "a batch that leaves something unclaimed which stands before its place"
"""While the rules hold there is none."""
MOMENTS = (CLAIMED, AGAIN, LEFT)


class Moments:
    """Which of them each batch is."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._ahead: dict[bytes, bytes] = {}
        """The last mark that keeps each key ahead."""

    def of(self, words: Sequence[bytes], reply: Reply) -> set[str]:
        """Of an `apply.lua`, as it was called, and what it answered."""
        if not isinstance(reply, list):
            return set()
        keys, arguments = _called(words)
        mark, operations, place = keys[3], _operations(arguments), arguments[6]
        ahead = [key for key in _list(reply[9]) if isinstance(key, bytes)]
        at = Place.parse(place)
        taken = b"" if at is None else at.mark
        found = set()
        if any(name == b"x" and key in ahead for name, key, *_ in operations):
            found.add(CLAIMED)
        if any(_is_later(self._ahead.get(key, b""), taken) for key in ahead):
            found.add(AGAIN)
        if any(shard.hints.waits(taken) for shard in self._book.shards if shard.names.lease in keys):
            found.add(LEFT)
        self._ahead |= dict.fromkeys(ahead, mark)
        return found


def records(words: Sequence[bytes]) -> bool:
    """Whether an `apply.lua` reads keys that have appeared: those that it records are ahead."""
    return any(name == b"p" for name, *_ in _operations(_called(words)[1]))


def _called(words: Sequence[bytes]) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """Keys and arguments."""
    behind = 3 + int(words[2])
    return words[3:behind], words[behind:]


def _operations(arguments: Sequence[bytes]) -> list[tuple[bytes, ...]]:
    return list(each(msgpack.unpackb(arguments[4], raw=True)))


def _list(reply: Reply) -> list[Reply]:
    return reply if isinstance(reply, list) else []


def _is_later(mark: bytes, other: bytes) -> bool:
    """Whether both are of one epoch, and it comes later in the stream."""
    fence, _, number = mark.rpartition(b"-")
    its_fence, _, its_number = other.rpartition(b"-")
    return fence == its_fence and number.isdigit() and its_number.isdigit() and int(number) > int(its_number)
