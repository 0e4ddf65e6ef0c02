"""Which partition a key's messages go to: the one that Kafka's own (Java) client would choose.

That is murmur2 of the key, without its sign, modulo the number of partitions. So a key's messages stay in order, and in
the same partition as what other applications write under the same key. As in every Kafka client, that holds as long as
the number of partitions does: messages from after a change may be elsewhere.

On Python 3.11, for keys of 16 bytes: 0.2 µs each in a batch of 500 of one length (one by one 1.1 µs; aiokafka's
own murmur2 4.1 µs; crc32, which is librdkafka's default, 0.13 µs). Too little to give up compatibility for.
"""

from collections.abc import Sequence
from struct import unpack

_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_32_BITS = 0xFFFFFFFF
_31_BITS = 0x7FFFFFFF
_LANE = 8
"""Bytes of a number in which 32 bits are multiplied by 32."""


def murmur2(keys: Sequence[bytes]) -> list[int]:
    """Of each key, the hash that `org.apache.kafka.common.utils.Utils.murmur2` returns, as an unsigned number."""
    hashes = [0] * len(keys)
    by_size: dict[int, list[int]] = {}
    for index, key in enumerate(keys):
        by_size.setdefault(len(key), []).append(index)
    for size, indices in by_size.items():
        found = _of_one_size(b"".join([keys[index] for index in indices]), size, len(indices))
        for index, value in zip(indices, found, strict=True):
            hashes[index] = value
    return hashes


def _of_one_size(joined: bytes, size: int, count: int) -> tuple[int, ...]:
    """Of keys of `size` bytes each, one behind the other: all at once, side by side in one large integer."""
    ones = int.from_bytes(b"\1".ljust(_LANE, b"\0") * count, "little")
    low, rest = ones * _32_BITS, size & 3

    def words(first: int, width: int) -> int:
        """Of each key, the number that some of its bytes are."""
        lanes = bytearray(_LANE * count)
        for byte in range(width):
            lanes[byte::_LANE] = joined[first + byte :: size]
        return int.from_bytes(lanes, "little")

    def shifted(values: int, bits: int) -> int:
        """Each value without its lowest bits. None gets those of its neighbour."""
        return values >> bits & ones * (_32_BITS >> bits)

    value = ones * (_SEED ^ size)
    for first in range(0, size - rest, 4):
        mixed = words(first, 4) * _MULTIPLIER & low
        value = (value * _MULTIPLIER & low) ^ ((mixed ^ shifted(mixed, 24)) * _MULTIPLIER & low)
    if rest:
        value = (value ^ words(size - rest, rest)) * _MULTIPLIER & low
    value = (value ^ shifted(value, 13)) * _MULTIPLIER & low
    value ^= shifted(value, 15)
    return unpack(f"<{count}Q", value.to_bytes(_LANE * count, "little"))


def partition_of(hash_: int, partitions: int) -> int:
    """The partition of a key with that hash, in a topic with `partitions` of them."""
    return (hash_ & _31_BITS) % partitions
