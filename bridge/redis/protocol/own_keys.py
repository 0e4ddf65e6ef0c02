"""The names of the bridge's own keys: they are part of the outside contract."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_OWN = re.compile(rb"(\d{1,9}):(\d{1,9})\}:(?:deadlines|moved|outbox|dead|lease|ended)")


_OF_ANY_BRIDGE = re.compile(
    rb"\{.*?:\d{1,9}:\d{1,9}\}:(?:deadlines|moved|outbox|dead|lease|ended|canary|shards|members|seen|mark:.*)",
    re.DOTALL,
)


def is_of_a_bridge(key: bytes) -> bool:
    """Whether it is named as the keys that a bridge keeps for itself, of this namespace or another one."""
    return key[:1] == b"{" and _OF_ANY_BRIDGE.fullmatch(key) is not None


@dataclass(frozen=True, slots=True)
class Names:
    """The keys of one shard of one database. The braces are a hash tag: in a cluster all of them share a slot."""

    namespace: str
    db: int
    shard: int = 0

    @property
    def own_prefix(self) -> bytes:
        """What every key of every bridge of this namespace begins with: such keys are never treated as a user's."""
        return b"{%b:" % self.namespace.encode()

    @property
    def own_pattern(self) -> bytes:
        """What a SCAN matches them with."""
        return re.sub(rb"([\\*?\[\]])", rb"\\\1", self.own_prefix) + b"*"

    @property
    def deadlines(self) -> bytes:
        """Sorted set: the deadline ledger. Member = key, score = deadline in ms."""
        return self.key(b"deadlines")

    @property
    def outbox(self) -> bytes:
        """Stream: claimed expirations that the broker has not acked."""
        return self.key(b"outbox")

    @property
    def lease(self) -> bytes:
        """Hash: who may change the ledger now (`acquire.lua`)."""
        return self.key(b"lease")

    @property
    def dead(self) -> bytes:
        """Stream: what the broker will never take, with the reason."""
        return self.key(b"dead")

    @property
    def moved(self) -> bytes:
        """Sorted set, as `deadlines`: entries of keys that have moved here from another node of a cluster, or are to
        be sent on to one.
        """  # noqa: D205 - one sentence
        return self.key(b"moved")

    @property
    def ended(self) -> bytes:
        """Sorted set, in a cluster whose slots move: key, and the deadline up to which its ends are handled."""
        return self.key(b"ended")

    def mark(self, fence: int, number: int) -> bytes:
        """A key that lives within one script only: its `del` notification is that script's place in the stream."""
        return self.key(b"mark:%d-%d" % (fence, number))

    @property
    def mark_prefix(self) -> bytes:
        """What the names of all marks begin with."""
        return self.key(b"mark:")

    def boundary(self, instance: str, number: int) -> bytes:
        """The mark of the grant of a lease: the bridge asks for it by that number."""
        return self.key(b"mark:%b-%d" % (instance.encode(), number))

    @property
    def announcements(self) -> bytes:
        """Channel: what batches announce (`place.Announcement`)."""
        return self.key(b"ahead")

    @property
    def alive_prefix(self) -> bytes:
        """What the channels of `alive` begin with."""
        return self.key(b"alive:")

    def alive(self, instance: str) -> bytes:
        """Channel: nothing is sent there; a bridge listens to its own as long as it lives."""
        return self.alive_prefix + instance.encode()

    def of(self, shard: int) -> "Names":
        """Those of another shard."""
        return Names(self.namespace, self.db, shard)

    @property
    def first(self) -> "Names":
        """Those of the first shard."""
        return Names(self.namespace, self.db)

    @property
    def shards(self) -> bytes:
        """String: how many shards there are. One for all of them."""
        return self.first.key(b"shards")

    @property
    def members(self) -> bytes:
        """Hash: the bridges that are alive, and until when. One for all shards."""
        return self.first.key(b"members")

    @property
    def watermarks(self) -> bytes:
        """Hash, in a cluster: up to when the notifications of each primary were handled. One for all shards."""
        return self.first.key(b"seen")

    @property
    def canary(self) -> bytes:
        """A key that lives for a moment, to see whether its expiration is notified."""
        return self.key(b"canary")

    def others(self, shards: int) -> "Sequence[Names]":
        """Those of all other shards, of `shards` altogether."""
        return [self.of(shard) for shard in range(shards) if shard != self.shard]

    def key(self, name: bytes) -> bytes:
        """The key of that name."""
        return b"{%b:%d:%d}:%b" % (self.namespace.encode(), self.db, self.shard, name)

    def shard_of(self, key: bytes) -> int | None:
        """The shard whose ledger, outbox or lease, say, the key is; None if it is a mark, or not the bridge's own."""
        found = _OWN.fullmatch(key.removeprefix(self.own_prefix)) if key.startswith(self.own_prefix) else None
        return int(found[2]) if found and int(found[1]) == self.db else None
