"""What a scan of the keyspace hands to the batches: keys that it found, or the next part, which a batch scans itself.

Only a batch records, in the same script that reads the key. So a scan can never overwrite what a later notification
said. Pure: `epoch/scan.py` drives it.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from bridge.redis.protocol import operations as op
from bridge.redis.protocol.calls import Applied

START = END = b"0"
"""Cursors of SCAN."""


class Findings:
    """Those of one epoch."""

    def __init__(self) -> None:
        self._keys: deque[bytes] = deque()
        self._cursor: bytes | None = None
        """The cursor of a scan that the batches do themselves; None while there is none."""
        self._match = b"*"

    def __len__(self) -> int:
        """The number of keys that wait to be recorded."""
        return len(self._keys)

    @property
    def scanning(self) -> bool:
        """Whether the batches scan."""
        return self._cursor is not None

    @property
    def waiting(self) -> bool:
        """Whether there is anything to make a batch of."""
        return self._cursor is not None or bool(self._keys)

    def add(self, keys: Iterable[bytes]) -> None:
        """These keys were found."""
        self._keys.extend(keys)

    def begin(self, match: bytes) -> None:
        """Let the next batches go through the keyspace, one part each."""
        self._cursor, self._match = START, match

    def drop(self) -> None:
        """The stream has ended. The next epoch's scan finds what is not recorded by now."""
        self._cursor = None
        self._keys.clear()

    def take(self, room: int, room_bytes: int) -> Iterator[bytes]:
        """Keys to be recorded: at most `room`, of about `room_bytes` bytes together."""
        while self._keys and room > 0 and room_bytes > 0:
            key = self._keys.popleft()
            room -= 1
            room_bytes -= len(key)
            yield key

    def next_part(self, room: int, room_bytes: int, own_prefix: bytes) -> Sequence[bytes]:
        """The operation by which a batch scans about `room` keys, or about `room_bytes` of them.

        Nothing where there is no such scan, or no room.
        """
        if self._cursor is None or room <= 0 or room_bytes <= 0:
            return ()
        return op.scan(self._cursor, room, room_bytes, self._match, own_prefix)

    def applied(self, applied: Applied) -> None:
        """A batch was applied. It may have scanned a part."""
        if applied.next_part:
            self._cursor = None if applied.next_part == END else applied.next_part
