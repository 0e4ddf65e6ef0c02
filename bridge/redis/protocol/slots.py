"""Hash slots of a cluster, and which ledger a primary has.

The ledger of a primary has the smallest number whose hash tag falls into one of its slots. So every bridge that knows
the slots knows the ledger's name, a promoted replica has its primary's, and it seldom changes when slots move.
"""

from binascii import crc_hqx
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from itertools import count

from bridge.redis.protocol.own_keys import Names

SLOTS = 16_384


def slot_of(key: bytes) -> int:
    """The slot of a key: CRC-16 (XMODEM) of its hash tag, if it has one, modulo the number of slots."""
    opening = key.find(b"{")
    if opening >= 0:
        closing = key.find(b"}", opening + 1)
        if closing > opening + 1:
            key = key[opening + 1 : closing]
    return crc_hqx(key, 0) % SLOTS


class Numbering:
    """The numbers of the ledgers of one namespace."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._slots: list[int] = []
        """By number, the slot that its hash tag falls into; as far as it was needed."""

    def of(self, slots: Mapping[str, AbstractSet[int]]) -> dict[int, str]:
        """The nodes by the number of their ledgers, given the slots of each. A node without slots has none."""
        nodes = {slot: node for node, of_node in slots.items() for slot in of_node}
        left = {node for node, of_node in slots.items() if of_node}
        found: dict[int, str] = {}
        for number in count():
            if not left:
                return found
            node = nodes.get(self._slot(number))
            if node in left:
                left.remove(node)
                found[number] = node
        raise AssertionError("there is no last number")

    def _slot(self, number: int) -> int:
        if number == len(self._slots):
            self._slots.append(slot_of(self._names.of(number).deadlines))
        return self._slots[number]
