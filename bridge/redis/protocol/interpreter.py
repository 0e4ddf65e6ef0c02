"""The interpreter: what each notification means for the ledger, given what the bridge already knows.

Pure: no I/O, no clock. It takes hints from the inbox, and makes batches of operations of them:

* Hints are handled in the order in which Redis sent them.
* What the return of a mark decides goes before the hints behind that mark (`marks.py`).
* The end of a key that is ahead does not concern its entry. An expiration belongs to a former life of the key, once the
  next mark proves it; a deletion means nothing.
* Keys that appeared come last, each once: the same script reads them. So do keys that a scan has found
  (`findings.py`), and keys that came from other nodes of a cluster (`migrated_keys.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bridge.limits import EpochLimits
from bridge.redis.protocol import operations as op
from bridge.redis.protocol.calls import Applied
from bridge.redis.protocol.canary import Canary
from bridge.redis.protocol.findings import Findings
from bridge.redis.protocol.followers import Followers
from bridge.redis.protocol.inbox import Inbox
from bridge.redis.protocol.marks import Marks, Round
from bridge.redis.protocol.migrated_keys import MigratedKeys
from bridge.redis.protocol.notifications import Kind
from bridge.redis.protocol.own_keys import Names, is_of_a_bridge
from bridge.redis.protocol.place import Place
from bridge.redis.protocol.takeover import Filling, Inheritance, skip_handled

_SHARES = 5
"""One in this many parts of a batch is reserved for a scan, no matter how many hints there are. So the scan ends, and
with it an open gap, even if keys are written without a pause."""


class OwnKeyLostError(Exception):
    """One of the bridge's own keys was deleted, evicted or moved away by someone else; the message names it."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What the epochs of one ledger listen to."""

    names: Names
    kinds: Mapping[bytes, Kind]
    """What each channel means."""
    matches: Callable[[bytes], object] | None
    """Whether a key belongs to the ledger; None if all do."""
    limits: EpochLimits
    digest: bytes = b""
    """The digest of all that: see `Place`."""
    word: bytes = b""
    """See `Anchor`; empty if gaps are not filled."""


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
        followers: Followers | None = None,
    ) -> None:
        """`migrated`: in a cluster. `inheritance`: if the epoch goes on with a former one's stream.

        `followers`: what else follows the notifications.
        """
        self.inbox = inbox
        self.marks = marks
        self.findings = Findings()
        self._scope = scope
        self._canary = canary
        self._migrated = migrated
        followers = followers or Followers()
        self._fields, self._captures = followers.fields, followers.captures
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
        """What stands before the boundary, if it was not notified."""
        self._record: Sequence[bytes] = ()
        """The record of a filled gap: an operation for the first batch."""
        if inheritance is not None:
            if self._fields is not None:  # how many the former epoch handled is not known; once more does no harm
                for channel, key in inbox:
                    self._fields.notified(channel, scope.kinds[channel], key)
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
        """How far the stream is handled, once what was taken is applied: see `Place`. Empty if no bridge can go on."""
        if not self._last_mark or self._filling is not None:
            return b""
        anchor = self.marks.anchor if self._scope.word else None
        heard = 0 if anchor is None else self.marks.heard
        return bytes(Place(self._last_mark, self._behind, self._scope.digest, heard, anchor))

    @property
    def waiting(self) -> bool:
        """Whether there is anything to make a batch of, besides what a scan has found."""
        marks, migrated = self.marks, self._migrated
        return bool(
            self.inbox
            or self._record
            or marks.released
            or (marks.round is not None and marks.round.resolving)
            or (migrated is not None and migrated.arrivals)
        )

    @property
    def patient(self) -> bool:
        """Whether only hints wait, and nothing waits for what one of them decides."""
        migrated = self._migrated
        return not (
            self.inbox.pressing
            or self.marks.deciding
            or (migrated is not None and migrated.arrivals)
            or (self._fields is not None and self._fields.waiting)
        )

    def touching(self, mark: bytes) -> None:
        """A touch is about to be sent, with that mark."""
        if self._migrated is not None:
            self._migrated.touching(mark)

    def applied(self, mark: bytes, applied: Applied) -> None:
        """A batch was applied; its mark, if it left one, is on its way."""
        self.marks.batch_left(mark, applied.ahead)
        self.findings.applied(applied)
        if self._captures is not None:
            self._captures.recorded(applied.behind, applied.first_recorded_ms)
        if self._migrated is not None:
            self._migrated.applied(applied.state.now_us // 1000)
        self._own_deletions += applied.emptied

    def batch(self, most_bytes: int | None = None, found_keys: int | None = None) -> list[bytes]:
        """The words of the next batch's operations: what a mark has decided, hints in order, then what appeared.

        `most_bytes`: of keys, give or take one key. `found_keys`: how many keys together with those that a scan finds;
        if hints alone are that many, the scan gets a share on top. By default, what the limits allow.
        Raises MarkLostError, OwnKeyLostError.
        """
        operations: list[bytes] = [*self._record]
        self._record = ()
        appeared: dict[bytes, None] = {}
        limits, marks, inbox = self._scope.limits, self.marks, self.inbox
        most_bytes = limits.batch_bytes if most_bytes is None else most_bytes
        count = size = looked = 0
        captures = self._captures
        if captures is not None:
            captures.claiming = 0
        # Everything that a mark releases goes into one batch: a place in between could not say how much of it is done.
        while marks.released or (count < limits.batch_keys and size < most_bytes and looked < limits.look_hints):
            if captures is not None and captures.claiming >= limits.value_bytes and not marks.released:
                break
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
        found = limits.found_keys if found_keys is None else found_keys
        room, room_bytes = max(found - count, found // _SHARES), max(most_bytes - size, most_bytes // _SHARES)
        self._complete(operations, appeared, count, room, room_bytes)
        return operations

    def _interpret(self, channel: bytes, key: bytes, operations: list[bytes], appeared: dict[bytes, None]) -> bool:
        """Interpret one hint. Returns whether it is about a key of the ledger, and says anything new."""
        kind, matches = self._kinds[channel], self._matches
        # An announcement is our own, or was read at the takeover. Only this bridge receives an invalidation.
        if kind is Kind.ANNOUNCED or (self._captures is not None and self._captures.notified(kind, key)):
            return False
        self._behind += 1
        if self._fields is not None and self._fields.notified(channel, kind, key):
            return False
        if kind is Kind.ELSEWHERE or key.startswith(self._own_prefix):
            self._own(channel, key, kind)
            return False
        if kind is Kind.EXPIRED:
            self.marks.heard += 1
        if is_of_a_bridge(key) or (matches is not None and not matches(key)):  # of another namespace; not to be bridged
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

    def _complete(
        self, operations: list[bytes], appeared: dict[bytes, None], count: int, room: int, room_bytes: int
    ) -> None:
        """Add what comes behind the hints, if a batch of `count` keys has room left, in keys and bytes."""
        limits, findings = self._scope.limits, self.findings
        found = list(findings.take(room, room_bytes))
        count += len(found)
        room -= len(found)
        room_bytes -= sum(map(len, found))
        for key in appeared | dict.fromkeys(found):
            operations += op.appeared(key)
        if self._migrated is not None:
            for entry in self._migrated.take(limits.batch_keys - count, room_bytes):
                operations += op.placed(*entry)
                room_bytes -= len(entry[0])
        operations += findings.next_part(room, room_bytes, self._own_prefix)

    def _ended(self, key: bytes, kind: Kind, operations: list[bytes]) -> None:
        """The key expired, or is gone otherwise."""
        marks = self.marks
        here = self._migrated is None or self._migrated.ended(key, kind)
        if marks.is_ahead(key):
            if kind is Kind.EXPIRED:
                marks.hold(key)
        elif kind is Kind.EXPIRED:
            if self._captures is not None:
                operations += self._captures.expired(key)
            self._claim(op.expired(key), operations)
            if marks.round is not None:
                marks.round.pending.pop(key, None)  # this claims it: nothing is left to resolve
        else:
            if self._captures is not None:
                self._captures.gone(key)
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
                if self._captures is not None:
                    self._captures.swept(key)
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
        if self._fields is not None:
            self._fields.returned(key)
        void = self._canary.void if self._canary is not None else 0
        if not self.marks.returned(key, void):
            self.marks.former_returned(key)

    def _stray(self, key: bytes) -> None:
        """One of the bridge's own keys has appeared. If it is another ledger's, it came with a slot."""
        if self._migrated is not None:
            number = self._names.shard_of(key)
            if number is not None and number != self._names.shard:
                self._migrated.strays.add(number)

    def _own_ended(self, key: bytes, kind: Kind) -> None:
        """One of the bridge's own keys, other than a mark, is gone."""
        if key == self._names.deadlines and kind is Kind.GONE and self._own_deletions:
            self._own_deletions -= 1
        elif key in self._vital and self._boundary is None:
            name = key.rpartition(b":")[2].decode()
            raise OwnKeyLostError(f"the bridge's own key {name} was deleted, evicted or moved away")
