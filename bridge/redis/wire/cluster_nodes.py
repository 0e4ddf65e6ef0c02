"""What nodes of a cluster answer to CLUSTER NODES: which primaries there are, and who has which slot.

They need not agree. A slot belongs to the node that claims it in the newest configuration epoch. So the word of a
primary that is cut off, and was replaced, no longer counts.

Pure: no I/O, no clock.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bridge.redis.protocol.slots import SLOTS
from bridge.redis.wire.endpoint import Address


@dataclass(frozen=True, slots=True)
class Claim:
    """A primary, as one node describes it."""

    id: str
    address: Address
    epoch: int
    """That of its configuration: of two nodes that claim a slot, the one with the greater epoch has it."""
    slots: tuple[range, ...]
    moving: frozenset[int]
    """Slots that are leaving or arriving here. Only the node itself reports that."""
    own: bool
    """Whether the node says it of itself."""


@dataclass(frozen=True, slots=True)
class Node:
    """A primary with slots."""

    id: str
    address: Address
    slots: frozenset[int]

    def __str__(self) -> str:
        return "{}:{}".format(*self.address)


View = tuple[Claim, ...]
"""What one node says."""


def merged(views: Sequence[View], stale: Sequence[View] = ()) -> Sequence[Node]:
    """The primaries that have slots, by the answers of several nodes; `stale`: last answers of nodes now silent.

    If two claim a slot, the newer configuration has it. If a node is reported in two places, the fresher report counts.
    """
    fresh = {claim for view in views for claim in view}
    all_claims = fresh.union(*stale)
    owners: dict[int, Claim] = {}
    for claim in sorted(all_claims, key=lambda claim: (claim.epoch, claim in fresh, claim.own, claim.id)):
        for slots in claim.slots:
            owners.update(dict.fromkeys(slots, claim))
    slots_of: dict[str, set[int]] = {}
    addresses: dict[str, Address] = {}
    for slot, claim in owners.items():
        slots_of.setdefault(claim.id, set()).add(slot)
        addresses[claim.id] = claim.address
    return [Node(id_, addresses[id_], frozenset(slots)) for id_, slots in sorted(slots_of.items())]


_ADDRESS = re.compile(r"(?P<host>.*):(?P<port>\d+)(?:@\d*)?(?:,(?P<name>[^,=]*))?(?:,.*)?")


def claims(text: str, asked: Address, *, tls: bool = False) -> Iterator[Claim]:
    """The primaries in an answer to CLUSTER NODES; `asked`: where, for a node that does not know its own address."""
    for line in text.splitlines():
        id_, where, flags, _, _, _, epoch, _, *slots = line.split(" ")
        found = _ADDRESS.fullmatch(where)
        kinds = set(flags.split(","))
        if found is None or "master" not in kinds or kinds & {"noaddr", "handshake"}:
            continue
        own = "myself" in kinds
        # A certificate is for a name. Without TLS, the address needs no resolver.
        host = (tls and found["name"]) or found["host"] or asked[0]
        port = int(found["port"]) or asked[1]
        yield Claim(
            id_,
            (host, port),
            int(epoch),
            tuple(_range(words) for words in slots if not words.startswith("[")),
            frozenset(int(re.split("-[<>]-", words[1:])[0]) for words in slots if words.startswith("[")),
            own,
        )


def _range(words: str) -> range:
    first, _, last = words.partition("-")
    return range(int(first), min(int(last or first), SLOTS - 1) + 1)
