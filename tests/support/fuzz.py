"""What tests with Hypothesis share: fields of damaged stream entries, and bytes cut into pieces."""

from itertools import pairwise

from hypothesis import strategies as st

from bridge.redis.ledger.letters import EXPIRATION, GAP, VALUE

ID = "9f0c1d2e" * 4
NAMES = st.sampled_from([name.encode() for name in ("id", "reason", *EXPIRATION, *GAP, *VALUE)]) | st.binary(max_size=4)
VALUES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [ID.encode(), b"notification", b"sweep", b"", b"-1", b"9" * 30, b"9" * 5000, b"1e3", b"1", b"hash", b"zset"]
    ),
)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """The same bytes, in pieces."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]
