"""What a node of a Redis Cluster says of all that it knows: the lines of CLUSTER NODES."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """One line."""

    id: str
    flags: frozenset[str]
    primary: str | None
    """The id of its primary, if it is a replica."""
    slots: tuple[range, ...]
    open: tuple[str, ...]
    """Slots on their way, as it says: `7050->-id`, `7050-<-id`. A node says that of itself only."""

    @property
    def lost(self) -> bool:
        """Whether all, or just the node that says it, think that it is gone."""
        return bool(self.flags & {"fail", "fail?", "noaddr", "handshake"})

    @property
    def serves(self) -> bool:
        """Whether it is a primary with slots, and not declared dead."""
        return "master" in self.flags and "fail" not in self.flags and bool(self.slots)

    @property
    def agreed(self) -> object:
        """What all nodes have to say in the same way."""
        return self.primary, self.slots, self.lost

    def has(self, slot: int) -> bool:
        """Whether the slot is one of its slots."""
        return any(slot in part for part in self.slots)

    def keeps(self, slot: int) -> bool:
        """Whether it is, and is not on its way to another node; of itself only, a node tells that."""
        return self.has(slot) and not any(text.startswith(f"{slot}->-") for text in self.open)


def members(lines: str) -> Iterator[Member]:
    """The members, of the whole answer."""
    for line in filter(None, lines.splitlines()):
        id_, _, flags, primary, _, _, _, _, *slots = line.split(" ")
        yield Member(
            id_,
            frozenset(flags.split(",")) - {"myself"},
            None if primary == "-" else primary,
            tuple(_range(text) for text in slots if not text.startswith("[")),
            tuple(text[1:-1] for text in slots if text.startswith("[")),
        )


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)
