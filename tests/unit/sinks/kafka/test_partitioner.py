"""Which partition a key belongs to."""

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.sinks.kafka.partitioner import murmur2, partition_of


@pytest.mark.parametrize(
    ("data", "value"),
    [  # of Kafka's own test of its own murmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_that_of_the_java_client(data: bytes, value: int) -> None:
    assert murmur2([data]) == [value % 2**32]


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"\xff" * 70, b"\x00" * 70, b"share:0001", b"share:0002"])))
def test_the_hashes_of_many_keys_are_those_of_the_client_library(keys: list[bytes]) -> None:
    assert murmur2(keys) == [reference(key) for key in keys]


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=70), st.integers(1, 1000))
def test_the_partition_is_the_default_of_other_clients(key: bytes, partitions: int) -> None:
    assert partition_of(murmur2([key])[0], partitions) == DefaultPartitioner()(key, list(range(partitions)), [])
