"""What the bridges of one deployment tell each other, through keys of the first ledger.

This is how many shards there are, which bridges are alive, and, in a cluster, up to when the notifications of each
primary were handled. Correctness depends only on the number of shards, because a key's shard depends on it.
"""

from collections.abc import Sequence

from bridge.redis.ledger.runner import Runner
from bridge.redis.protocol.own_keys import Names


class Roster:
    """The scripts `shards`, `members` and `seen`."""

    def __init__(self, runner: Runner, names: Names) -> None:
        """`names`: of any ledger of the deployment."""
        self._runner = runner
        self._names = names

    async def agree(self, shards: int) -> int:
        """The number of shards for all bridges: `shards`, unless another number was set before."""
        keys = [self._names.shards, self._names.first.lease]
        return int(await self._runner.run("shards", keys, [shards]))

    async def sign_of_life(self, instance: str, life_ms: int) -> tuple[int, int]:
        """Count as alive for `life_ms`; if 0, no longer. Returns the position among the living, and their number."""
        place, count = await self._runner.run("members", [self._names.members], [instance, life_ms])
        return place, count

    async def exchange(self, watermarks: Sequence[tuple[str, str]]) -> tuple[int, dict[str, str]]:
        """In a cluster, say up to when notifications were handled. Returns Redis's clock, and what all bridges said."""
        words = [word for watermark in watermarks for word in watermark]
        now_ms, flat = await self._runner.run("seen", [self._names.watermarks], words)
        said = iter(word.decode(errors="replace") for word in flat)
        return now_ms, dict(zip(said, said, strict=True))
