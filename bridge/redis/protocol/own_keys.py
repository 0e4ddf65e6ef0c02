"""The names of the bridge's own keys: they are part of the outside contract."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

_OWN = re.compile(rb"(\d{1,9}):(\d{1,9})\}:(?:deadlines|moved|outbox|dead|lease|ended|values|fields)")


_OF_ANY_BRIDGE = re.compile(
    rb"\{.*?:\d{1,9}:\d{1,9}\}:(?:deadlines|moved|outbox|dead|lease|ended|values|canary|shards|members|seen|mark:.*"
    rb"|fields|field:.*)",
    re.DOTALL,
)


def is_of_a_bridge(key: bytes) -> bool:
    """Whether it has the name of a bridge's own key, in this namespace or another one."""
    return key[:1] == b"{" and _OF_ANY_BRIDGE.fullmatch(key) is not None


@dataclass(frozen=True)
class Names:
    """The keys of one shard of one database. The braces are a hash tag: in a cluster all of them share a slot."""

    namespace: str
    db: int
    shard: int = 0

    @cached_property
    def own_prefix(self) -> bytes:
        """The beginning of every key of every bridge in this namespace. Such keys are never treated as a user's."""
        return b"{%b:" % self.namespace.encode()

    @cached_property
    def own_pattern(self) -> bytes:
        """The pattern by which a SCAN finds them."""
        return re.sub(rb"([\\*?\[\]])", rb"\\\1", self.own_prefix) + b"*"

    @cached_property
    def deadlines(self) -> bytes:
        """Sorted set: the deadline ledger. Member = key, score = deadline in ms."""
        return self.key(b"deadlines")

    @cached_property
    def outbox(self) -> bytes:
        """Stream: claimed expirations that the broker has not acked."""
        return self.key(b"outbox")

    @cached_property
    def lease(self) -> bytes:
        """Hash: who may change the ledger now (`acquire.lua`)."""
        return self.key(b"lease")

    @cached_property
    def dead(self) -> bytes:
        """Stream: what the broker will never take, with the reason."""
        return self.key(b"dead")

    @cached_property
    def moved(self) -> bytes:
        """Sorted set, as `deadlines`: entries of keys that have moved here from another node of a cluster, or have to
        be sent to one.
        """  # noqa: D205 - one sentence
        return self.key(b"moved")

    @cached_property
    def ended(self) -> bytes:
        """Sorted set, in a cluster whose slots move: key, and the deadline up to which its ends are handled."""
        return self.key(b"ended")

    @cached_property
    def values(self) -> bytes:
        """Hash: the values of keys that are about to expire (`capture.lua`)."""
        return self.key(b"values")

    @cached_property
    def fields(self) -> bytes:
        """Sorted set: the field ledger. Member = hash, score = the first deadline of its fields in ms."""
        return self.key(b"fields")

    @cached_property
    def field_prefix(self) -> bytes:
        """The beginning of the name of a hash's index: a sorted set, field → deadline in ms."""
        return self.key(b"field:")

    def mark(self, fence: int, number: int) -> bytes:
        """A key that lives within one script only: its `del` notification is that script's place in the stream."""
        return self.mark_prefix + b"%d-%d" % (fence, number)

    @cached_property
    def mark_prefix(self) -> bytes:
        """The beginning of the names of all marks."""
        return self.key(b"mark:")

    def boundary(self, instance: str, number: int) -> bytes:
        """The mark that is left when a lease is granted. The bridge chooses its number when it asks."""
        return self.key(b"mark:%b-%d" % (instance.encode(), number))

    @cached_property
    def announcements(self) -> bytes:
        """Channel: what batches announce (`place.Announcement`)."""
        return self.key(b"ahead")

    @cached_property
    def alive_prefix(self) -> bytes:
        """The beginning of the names of `alive` channels."""
        return self.key(b"alive:")

    def alive(self, instance: str) -> bytes:
        """Channel: nothing is sent there. A bridge listens to its own while it lives."""
        return self.alive_prefix + instance.encode()

    def of(self, shard: int) -> "Names":
        """Those of another shard."""
        return Names(self.namespace, self.db, shard)

    @cached_property
    def first(self) -> "Names":
        """Those of the first shard."""
        return Names(self.namespace, self.db)

    @cached_property
    def shards(self) -> bytes:
        """String: how many shards there are. One for all of them."""
        return self.first.key(b"shards")

    @cached_property
    def members(self) -> bytes:
        """Hash: the bridges that are alive, and until when. One for all shards."""
        return self.first.key(b"members")

    @cached_property
    def watermarks(self) -> bytes:
        """Hash, in a cluster: up to when the notifications of each primary were handled. One for all shards."""
        return self.first.key(b"seen")

    @cached_property
    def canary(self) -> bytes:
        """A key that lives for a moment, and shows whether its expiration is notified."""
        return self.key(b"canary")

    def others(self, shards: int) -> "Sequence[Names]":
        """Those of all other shards, of `shards` altogether."""
        return [self.of(shard) for shard in range(shards) if shard != self.shard]

    def key(self, name: bytes) -> bytes:
        """The key of that name."""
        return b"{%b:%d:%d}:%b" % (self.namespace.encode(), self.db, self.shard, name)

    def shard_of(self, key: bytes) -> int | None:
        """The shard to which the key belongs, as its ledger, outbox or lease; None for a mark, or a key of others."""
        found = _OWN.fullmatch(key.removeprefix(self.own_prefix)) if key.startswith(self.own_prefix) else None
        return int(found[2]) if found and int(found[1]) == self.db else None
