"""The prototype of a ledger in buckets: what its report measures is the same work."""

import pytest

from tests.bench.ledger_memory import MEMORY, VARIANTS, WAYS, measured
from tests.support.servers import RedisServer, require

KEYS = 2_000


@pytest.mark.slow
async def test_the_prototype_claims_all_that_is_due_and_takes_less_memory() -> None:
    require(RedisServer)
    found = {variant: await measured(RedisServer, variant, KEYS, 16) for variant in VARIANTS}  # raises, if any is left
    assert {tuple(sorted(figures)) for figures in found.values()} == {tuple(sorted((MEMORY, *WAYS)))}
    assert found["buckets"][MEMORY] < found["present"][MEMORY]
