"""From hints to operations: what each notification means for the ledger, given what the bridge knows by now.

Pure: no I/O, no clock. The rules are those of the ledger protocol:

* Hints are handled in the order in which Redis sent them.
* What a touch saw is *resolved* where its mark stands in the stream: every hint of a key that it expired stands before.
* In a cluster, keys come from other nodes, and go to them. Whether an entry of a key that came here still tells of an
  expiration depends on whether this epoch was told of the key: so what it was told last is remembered.
* Keys that a batch wrote are *ahead* of the stream until that batch's mark comes back: older hints of them, still on
  their way, may not undo what was read later than they were sent.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bridge.redis.protocol import operations as op
from bridge.redis.protocol.calls import ALIVE, GONE, MOVED, Applied, Touched
from bridge.redis.protocol.canary import Canary
from bridge.redis.protocol.migrated_keys import Told
from bridge.redis.protocol.notifications import Kind
from bridge.redis.protocol.own_keys import Names

BATCH_KEYS = 500
"""Operations in one script: a bound on how long it keeps Redis busy (about 2 ms), far below what Lua can unpack."""
FOUND_KEYS = 250
"""Keys that a scan found in one script: nobody waits for them, but others wait for Redis meanwhile."""
BATCH_BYTES = 1024 * 1024
"""Bytes of keys in one script, give or take one key."""
LOOK_LIMIT = 5_000
"""Hints looked at for one batch before the event loop turns: most may be of others' keys, or of keys in it already."""

Seen = tuple[bytes, bytes, bytes]
"""Score, GONE, ALIVE or MOVED, `1` (due) or `0`: the arguments of a resolve."""


class MarkLostError(Exception):
    """A mark came back before an earlier one: notifications were off for a moment. The message says so."""


class OwnKeyLostError(Exception):
    """One of the bridge's own keys was deleted, evicted or moved away by somebody else; the message names it."""


@dataclass(slots=True)
class Round:
    """One touch, until what it saw is resolved."""

    mark: bytes
    redis_ms: int
    """When Redis ran it."""
    complete: bool
    """Whether it saw all that was due, not only as much as one script may."""
    marked: bool = False
    """Whether its mark has come back."""
    pending: dict[bytes, Seen] = field(default_factory=dict)
    """What it saw, less what an `expired` hint before the mark has settled."""
    counters: Sequence[bytes | int] = ()
    """What it read for the audit."""
    heard: int = 0
    """Notifications of expirations before the mark, once that is back."""
    void: int = 0
    """Canaries that turned out void before the mark, without that touch knowing of it."""
    stuck: int = 0
    """Entries that could not be resolved, since the slots of their keys are on their way to another node."""


class Hints:
    """The bridge's knowledge of the stream, in one epoch."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it is told of, and what that means
        self,
        names: Names,
        kinds: Mapping[bytes, Kind],
        matches: Callable[[bytes], object] | None,
        canary: Canary | None = None,
        heard: int = 0,
        told: Told | None = None,
    ) -> None:
        """`heard`: notifications of expirations that former epochs have handled.

        `told`, in a cluster: what becomes of keys that come from other nodes.
        """
        self.stream: deque[tuple[bytes, bytes]] = deque()
        """Channel and key of every hint that is not handled yet."""
        self.found: deque[bytes] = deque()
        """Keys that a scan found: handled like a notification that they appeared."""
        self.moved: deque[tuple[bytes, int]] = deque()
        """Keys that came from other nodes, and what their entries there said."""
        self.strays: set[int] = set()
        """Numbers of other ledgers that have appeared on this node of a cluster."""
        self.part: bytes | None = None
        """Where a scan that the batches do themselves goes on; None: there is none."""
        self._match = b"*"
        self.round: Round | None = None
        """The touch that is not resolved yet. At most one at a time."""
        self.heard = heard
        """Notifications of expirations taken from the stream, in all epochs, of all databases, canaries left out."""
        self.bytes_taken = 0
        """Bytes of all keys taken from the stream so far."""
        self._own_prefix = names.own_prefix
        self._vital = {names.deadlines, names.lease, names.outbox}
        self._deadlines = names.deadlines
        self._kinds = kinds
        self._matches = matches
        self._canary = canary
        self._resolving: deque[tuple[bytes, Seen]] = deque()
        self._ahead: dict[bytes, int] = {}
        self._marks: dict[bytes, tuple[bytes, ...]] = {}
        self._outstanding: deque[bytes] = deque()
        """Marks on their way, in the order in which they have to come back."""
        self._held: list[bytes] = []
        """Keys that expired while they were ahead, for all that is known: the next mark proves it."""
        self._former: deque[bytes] = deque()
        """Those of which it is proved: expirations of a former life of the key."""
        self._own_deletions = 0
        self._names = names
        self._told = told

    @property
    def waiting(self) -> bool:
        """Whether there is anything to make a batch of."""
        if self.part is not None:
            return True
        return bool(self.stream or self.found or self.moved or self._resolving or self._former)

    @property
    def handled(self) -> int:
        """Of the notifications in `heard`, those that are in batches, or need not be."""
        return self.heard - len(self._held) - len(self._former)

    def touched(self, mark: bytes, touched: Touched, limit: int) -> None:
        """A touch of up to `limit` keys was made; its mark is on its way."""
        self._outstanding.append(mark)
        pending = {key: (score, seen, due) for key, score, seen, due in touched.seen}
        self.round = Round(
            mark, touched.state.now_us // 1000, len(pending) < limit, pending=pending, counters=touched.counters
        )

    def applied(self, mark: bytes, applied: Applied) -> None:
        """A batch was applied; its mark, if it left one, is on its way."""
        if applied.ahead:
            self._outstanding.append(mark)
            self._marks[mark] = tuple(applied.ahead)
            for key in applied.ahead:
                self._ahead[key] = self._ahead.get(key, 0) + 1
        if self._told is not None:
            self._told.applied(applied.state.now_us // 1000)
        self._own_deletions += applied.emptied
        if applied.next_part:
            self.part = None if applied.next_part == b"0" else applied.next_part

    def scan(self, match: bytes) -> None:
        """Let the following batches go through the keyspace, a part each."""
        self.part, self._match = b"0", match

    def scan_no_more(self) -> None:
        """The stream has come to its end: what is not recorded by now, the next epoch's scan finds."""
        self.part = None
        self.found.clear()

    def finished_round(self) -> Round | None:
        """The round, once all of it is resolved and applied; None until then. To be asked after each batch."""
        finished = self.round
        if finished is None or not finished.marked or self._resolving:
            return None
        self.round = None
        return finished

    def batch(self) -> list[bytes]:
        """The arguments of the next batch: what a mark has released, hints in order, then what appeared.

        Raises MarkLostError, OwnKeyLostError.
        """
        operations: list[bytes] = []
        appeared: dict[bytes, None] = {}
        stream, matches = self.stream, self._matches
        count = size = looked = 0
        while count < BATCH_KEYS and size < BATCH_BYTES and looked < LOOK_LIMIT:
            looked += 1
            if self._former or self._resolving:
                key = self._release(operations)
            elif stream:
                channel, key = stream.popleft()
                self.bytes_taken += len(key)
                kind = self._kinds[channel]
                self.heard += kind is Kind.EXPIRED or kind is Kind.ELSEWHERE
                if kind is Kind.ELSEWHERE or key.startswith(self._own_prefix):
                    self._own(key, kind)
                    continue
                if matches is not None and not matches(key):
                    continue
                if kind is Kind.APPEARED:
                    if self._told is not None and channel.endswith(b":restore"):
                        self._told.remember(key)
                    if key in appeared:
                        continue
                    appeared[key] = None
                else:
                    self._ended(key, kind, operations)
            else:
                break
            count += 1
            size += len(key)
        self._find(appeared, FOUND_KEYS - count, BATCH_BYTES - size)
        for key in appeared:
            operations += op.appeared(key)
        self._place(operations, BATCH_KEYS - len(operations) // 2, BATCH_BYTES - size)
        operations += self._next_part(count, size)
        return operations

    def _find(self, appeared: dict[bytes, None], room: int, room_bytes: int) -> None:
        """What a scan found, where there is room for it."""
        while self.found and room > 0 and room_bytes > 0:
            key = self.found.popleft()
            appeared[key] = None
            room -= 1
            room_bytes -= len(key)

    def _place(self, operations: list[bytes], room: int, room_bytes: int) -> None:
        """Entries that came from other nodes, behind all that is known of their keys."""
        while self._told is not None and self.moved and room > 0 and room_bytes > 0:
            key, deadline = self.moved.popleft()
            operations += op.placed(key, deadline, self._told.of(key, deadline))
            room -= 1
            room_bytes -= len(key)

    def _next_part(self, count: int, size: int) -> Sequence[bytes]:
        """What a batch of so many keys and bytes is to scan."""
        if self.part is None or count >= FOUND_KEYS or size >= BATCH_BYTES:
            return ()
        return op.scan(self.part, FOUND_KEYS - count, self._match, self._own_prefix)

    def _ended(self, key: bytes, kind: Kind, operations: list[bytes]) -> None:
        """The key expired, or is gone otherwise."""
        if self._told is not None:
            self._told.ended(key, kind)
        if key in self._ahead:
            # The entry knows of a later life of the key. An expiration is still one; a deletion is nothing any more.
            # But is it of a former life? The next mark says so, by coming back: had this key's mark been before the
            # hint, and lost, that one would be the wrong one.
            if kind is Kind.EXPIRED:
                self._held.append(key)
        elif kind is Kind.EXPIRED:
            self._claim(op.expired(key), operations)
            if self.round is not None:
                self.round.pending.pop(key, None)  # claimed by this: nothing is left to resolve
        else:
            operations += op.gone(key)

    def _claim(self, operation: op.Operation, operations: list[bytes]) -> None:
        operations += operation
        if self._told is not None:
            self._told.claims(operation[1])

    def _release(self, operations: list[bytes]) -> bytes:
        if self._former:
            key = self._former.popleft()
            self._claim(op.expired_ahead(key), operations)
            return key
        key, (score, seen, due) = self._resolving.popleft()
        if self._matches is not None and not self._matches(key):
            operations += op.forget(key)
        elif key not in self._ahead:
            if self._told is not None and not self._resolvable(self._told, key, seen):
                return key
            operations += op.resolve(key, score, seen, due)
        return key

    def _resolvable(self, told: Told, key: bytes, seen: bytes) -> bool:
        """Whether what a touch saw of a key, in a cluster, can be resolved now."""
        # A key that is on its way from here is said to have moved when it is past its deadline, too; one on its way to
        # here, to be gone. Once the slot is where it belongs, everybody says so.
        if seen != ALIVE and told.away(key) != (seen == MOVED):
            if seen == MOVED and told.catching_up:
                return True  # a slot may stay half-way for long: its entries wait elsewhere, and the gap can be closed
            if self.round is not None:
                self.round.stuck += 1
            return False
        if seen == GONE:
            told.remember(key)
        return True

    def _own(self, key: bytes, kind: Kind) -> None:
        """One of the bridge's own keys: a mark, the canary, or what the bridge lives on; or a key elsewhere."""
        if kind is Kind.APPEARED or kind is Kind.ELSEWHERE:
            self._stray(key)
            return
        if self._canary is not None and key in self._canary.all:
            self.heard -= kind is Kind.EXPIRED
            if key == self._canary.key:
                self._canary.ended(expired=kind is Kind.EXPIRED)
        else:
            self._lost(key, kind)

    def _stray(self, key: bytes) -> None:
        """One of the bridge's own keys has appeared: with a slot that came here, if it is of another ledger."""
        if self._told is not None:
            number = self._names.shard_of(key)
            if number is not None and number != self._names.shard:
                self.strays.add(number)

    def _lost(self, key: bytes, kind: Kind) -> None:
        """A mark has come back, or one of the keys that the bridge lives on is gone."""
        if key in self._outstanding:
            self._mark_returned(key)
        if self.round is not None and key == self.round.mark:
            self.round.marked = True
            self.round.heard = self.heard
            self.round.void = self._canary.void if self._canary is not None else 0
            self._resolving.extend(self.round.pending.items())
            self.round.pending = {}
        elif (keys := self._marks.pop(key, None)) is not None:
            for ahead in keys:
                self._ahead[ahead] -= 1
                if not self._ahead[ahead]:
                    del self._ahead[ahead]
        elif key == self._deadlines and kind is Kind.GONE and self._own_deletions:
            self._own_deletions -= 1  # a batch of ours removed the last entry
        elif key in self._vital:
            name = key.rpartition(b":")[2].decode()
            raise OwnKeyLostError(f"the bridge's own key {name} was deleted, evicted or moved away")

    def _mark_returned(self, mark: bytes) -> None:
        if mark != self._outstanding.popleft():
            raise MarkLostError("notifications were mute for a moment: a mark came back, and an earlier one did not")
        self._former.extend(self._held)
        self._held.clear()
