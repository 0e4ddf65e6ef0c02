"""The interpreter: what each notification means for the ledger, given what the bridge knows by now.

Pure: no I/O, no clock. It takes hints from the inbox, and makes batches of operations of them:

* Hints are handled in the order in which Redis sent them.
* What the return of a mark decides goes before the hints behind that mark (`marks.py`).
* An end of a key that is ahead is not that of its entry: an expiration is one of a former life of the key, once the
  next mark proves it; a deletion is nothing.
* What appeared comes last, and once: its key is read in the same script. So does what a scan has found (`findings.py`),
  and what came from other nodes of a cluster (`migrated_keys.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bridge.limits import EpochLimits
from bridge.redis.protocol import operations as op
from bridge.redis.protocol.calls import Applied
from bridge.redis.protocol.canary import Canary
from bridge.redis.protocol.findings import Findings
from bridge.redis.protocol.inbox import Inbox
from bridge.redis.protocol.marks import Marks, Round
from bridge.redis.protocol.migrated_keys import MigratedKeys
from bridge.redis.protocol.notifications import Kind
from bridge.redis.protocol.own_keys import Names, is_of_a_bridge
from bridge.redis.protocol.place import Place
from bridge.redis.protocol.takeover import Filling, Inheritance, skip_handled


class OwnKeyLostError(Exception):
    """One of the bridge's own keys was deleted, evicted or moved away by someone else; the message names it."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What the epochs of one ledger listen to."""

    names: Names
    kinds: Mapping[bytes, Kind]
    """What each channel means."""
    matches: Callable[[bytes], object] | None
    """Whether a key is one of the ledger's; None where all are."""
    limits: EpochLimits
    digest: bytes = b""
    """Of all that: see `Place`."""
    word: bytes = b""
    """See `Anchor`; empty where no gap is to be filled."""


class Interpreter:
    """That of one epoch."""

    def __init__(
        self,
        scope: Scope,
        inbox: Inbox,
        marks: Marks,
        canary: Canary | None = None,
        migrated: MigratedKeys | None = None,
        inheritance: Inheritance | None = None,
    ) -> None:
        """`migrated`: in a cluster. `inheritance`: where the epoch goes on with a former one's stream."""
        self.inbox = inbox
        self.marks = marks
        self.findings = Findings()
        self._scope = scope
        self._canary = canary
        self._migrated = migrated
        self._names, self._kinds, self._matches = scope.names, scope.kinds, scope.matches
        self._own_prefix = scope.names.own_prefix
        self._vital = {scope.names.deadlines, scope.names.lease, scope.names.outbox}
        self._own_deletions = 0
        """How often a batch removed the last entry, and the end of the ledger was not notified yet."""
        self._mark_prefix = scope.names.mark_prefix
        self._last_mark = b""
        """The last mark taken; empty before the first one."""
        self._behind = 0
        """How many notifications were taken behind it."""
        self._boundary: bytes | None = None
        """Up to this mark, hints of own keys other than marks are about a former epoch."""
        self._filling: Filling | None = None
        """What stands before the boundary, where that is not what was notified."""
        self._record: Sequence[bytes] = ()
        """Of a gap that is filled: an operation for the first batch."""
        if inheritance is not None:
            skip_handled(inheritance, inbox, marks, scope.kinds)
            self._boundary, self._own_deletions = inheritance.boundary, inheritance.emptied
            self._filling = inheritance.filling
            if self._filling is None:
                self._last_mark, self._behind = inheritance.place.mark, inheritance.place.hints
                marks.anchor = inheritance.place.anchor
            else:
                self._record = self._filling.record

    @property
    def place(self) -> bytes:
        """How far the stream is handled, once what was taken is applied: see `Place`. Empty where nobody can go on."""
        if not self._last_mark or self._filling is not None:
            return b""
        anchor = self.marks.anchor if self._scope.word else None
        heard = 0 if anchor is None else self.marks.heard
        return bytes(Place(self._last_mark, self._behind, self._scope.digest, heard, anchor))

    @property
    def waiting(self) -> bool:
        """Whether there is anything to make a batch of."""
        marks, migrated = self.marks, self._migrated
        return bool(
            self.inbox
            or self.findings.waiting
            or marks.released
            or (marks.round is not None and marks.round.resolving)
            or (migrated is not None and migrated.arrivals)
        )

    def touching(self, mark: bytes) -> None:
        """A touch is about to be sent, with that mark."""
        if self._migrated is not None:
            self._migrated.touching(mark)

    def applied(self, mark: bytes, applied: Applied) -> None:
        """A batch was applied; its mark, if it left one, is on its way."""
        self.marks.batch_left(mark, applied.ahead)
        self.findings.applied(applied)
        if self._migrated is not None:
            self._migrated.applied(applied.state.now_us // 1000)
        self._own_deletions += applied.emptied

    def batch(self, most_bytes: int | None = None) -> list[bytes]:
        """The words of the next batch's operations: what a mark has decided, hints in order, then what appeared.

        `most_bytes` of keys, give or take one; by default, what the limits allow.
        Raises MarkLostError, OwnKeyLostError.
        """
        operations: list[bytes] = [*self._record]
        self._record = ()
        appeared: dict[bytes, None] = {}
        limits, marks, inbox = self._scope.limits, self.marks, self.inbox
        most_bytes = limits.batch_bytes if most_bytes is None else most_bytes
        count = size = looked = 0
        # All that a mark releases goes into one batch: a place in between would not say how much of it is handled.
        while marks.released or (count < limits.batch_keys and size < most_bytes and looked < limits.look_hints):
            looked += 1
            if marks.released:
                key = self._release(operations)
            elif marks.round is not None and marks.round.resolving:
                key = self._resolve(marks.round, operations)
            elif inbox:
                channel, key = inbox.take()
                if not self._interpret(channel, key, operations, appeared):
                    continue
            else:
                break
            count += 1
            size += len(key)
        self._complete(operations, appeared, count, most_bytes - size)
        return operations

    def _interpret(self, channel: bytes, key: bytes, operations: list[bytes], appeared: dict[bytes, None]) -> bool:
        """One hint. Whether it is one of the ledger's keys, and anything new."""
        kind, matches = self._kinds[channel], self._matches
        if kind is Kind.ANNOUNCED:
            return False  # our own, or it was read when the stream was taken over
        self._behind += 1
        if kind is Kind.ELSEWHERE or key.startswith(self._own_prefix):
            self._own(channel, key, kind)
            return False
        if kind is Kind.EXPIRED:
            self.marks.heard += 1
        if is_of_a_bridge(key):  # of another namespace
            return False
        if matches is not None and not matches(key):
            return False
        if kind is Kind.APPEARED:
            if self._migrated is not None and channel.endswith(b":restore"):
                self._migrated.remember(key)
            if key in appeared:
                return False
            appeared[key] = None
        else:
            self._ended(key, kind, operations)
        return True

    def _complete(self, operations: list[bytes], appeared: dict[bytes, None], count: int, room_bytes: int) -> None:
        """What comes behind the hints, where a batch of `count` keys has room for so many bytes more."""
        limits, findings = self._scope.limits, self.findings
        found = list(findings.take(limits.found_keys - count, room_bytes))
        count += len(found)
        room_bytes -= sum(map(len, found))
        for key in appeared | dict.fromkeys(found):
            operations += op.appeared(key)
        if self._migrated is not None:
            for entry in self._migrated.take(limits.batch_keys - count, room_bytes):
                operations += op.placed(*entry)
                room_bytes -= len(entry[0])
        operations += findings.next_part(limits.found_keys - count, room_bytes, self._own_prefix)

    def _ended(self, key: bytes, kind: Kind, operations: list[bytes]) -> None:
        """The key expired, or is gone otherwise."""
        marks = self.marks
        here = self._migrated is None or self._migrated.ended(key, kind)
        if marks.is_ahead(key):
            if kind is Kind.EXPIRED:
                marks.hold(key)
        elif kind is Kind.EXPIRED:
            self._claim(op.expired(key), operations)
            if marks.round is not None:
                marks.round.pending.pop(key, None)  # claimed by this: nothing is left to resolve
        else:
            operations += op.gone(key) if here else op.gone_elsewhere(key)

    def _claim(self, operation: op.Operation, operations: list[bytes]) -> None:
        operations += operation
        if self._migrated is not None:
            self._migrated.claiming(operation[1])

    def _release(self, operations: list[bytes]) -> bytes:
        key = self.marks.released.popleft()
        self._claim(op.expired_ahead(key), operations)
        return key

    def _resolve(self, round_: Round, operations: list[bytes]) -> bytes:
        key, (score, state, due) = round_.resolving.popleft()
        if self._matches is not None and not self._matches(key):
            operations += op.forget(key)
        elif not self.marks.is_ahead(key):
            if self._migrated is None or self._migrated.resolvable(key, state):
                operations += op.resolve(key, score, state, due)
            else:
                round_.stuck += 1
        return key

    def _own(self, channel: bytes, key: bytes, kind: Kind) -> None:
        """An expiration in another database, or one of the bridge's own keys."""
        if kind is Kind.ELSEWHERE:
            self.marks.heard += 1
        elif kind is Kind.APPEARED:
            self._stray(key)
        elif self._canary is not None and key in self._canary.all:
            if key == self._canary.key and self._boundary is None:
                self._canary.ended(expired=kind is Kind.EXPIRED, evicted=channel.endswith(b":evicted"))
        elif key.startswith(self._mark_prefix):
            self._mark_taken(key)
        else:
            self.marks.heard += kind is Kind.EXPIRED
            self._own_ended(key, kind)

    def _mark_taken(self, key: bytes) -> None:
        """A mark of this ledger: of this epoch, or of a former one."""
        self._last_mark, self._behind = key, 0
        if key == self._boundary:
            self._boundary = self._filling = None
        if self._migrated is not None:
            self._migrated.returned(key)
        void = self._canary.void if self._canary is not None else 0
        if not self.marks.returned(key, void):
            self.marks.former_returned(key)

    def _stray(self, key: bytes) -> None:
        """One of the bridge's own keys has appeared: with a slot that came here, if it is of another ledger."""
        if self._migrated is not None:
            number = self._names.shard_of(key)
            if number is not None and number != self._names.shard:
                self._migrated.strays.add(number)

    def _own_ended(self, key: bytes, kind: Kind) -> None:
        """One of the bridge's own keys is gone that is no mark."""
        if key == self._names.deadlines and kind is Kind.GONE and self._own_deletions:
            self._own_deletions -= 1
        elif key in self._vital and self._boundary is None:
            name = key.rpartition(b":")[2].decode()
            raise OwnKeyLostError(f"the bridge's own key {name} was deleted, evicted or moved away")
