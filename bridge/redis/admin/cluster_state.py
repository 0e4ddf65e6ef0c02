"""What the primaries of a cluster say of all of it, put together for people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bridge.redis.protocol.slots import SLOTS
from bridge.redis.wire.cluster_nodes import claims, merged
from bridge.redis.wire.endpoint import Address

GONE = {"fail", "fail?", "noaddr", "handshake"}
"""What a node says of another one that it cannot reach."""


@dataclass(frozen=True, slots=True)
class ClusterState:
    """Nodes are called by their addresses."""

    primaries: Sequence[str]
    """Those with slots."""
    failing: Sequence[str]
    """Those of them that another node cannot reach."""
    alone: Sequence[str]
    """Those of them that no replica stands by."""
    unserved: int
    """Slots that no primary has."""
    moving: int
    """Slots that are on their way."""


def state_of(texts: Mapping[Address, str]) -> ClusterState:
    """`texts`: the answers to CLUSTER NODES, by who gave them."""
    views = [tuple(claims(text, address)) for address, text in texts.items()]
    nodes = merged(views)
    moving = {slot for view in views for claim in view for slot in claim.moving}
    failing, followed = set[str](), set[str]()
    for line in (line.split(" ") for text in texts.values() for line in text.splitlines()):
        id_, flags, primary = line[0], set(line[2].split(",")), line[3]
        if "master" in flags and flags & GONE:
            failing.add(id_)
        elif primary != "-" and not flags & GONE:
            followed.add(primary)
    return ClusterState(
        primaries=[str(node) for node in nodes],
        failing=[str(node) for node in nodes if node.id in failing],
        alone=[str(node) for node in nodes if node.id not in followed],
        unserved=SLOTS - sum(len(node.slots) for node in nodes),
        moving=len(moving),
    )
