"""What the bridges of one deployment say to each other, through keys of the first ledger.

How many shards there are, which bridges are alive, and, in a cluster, up to when the notifications of each primary were
handled. Correctness rests on none of it but the number of shards: a key's shard depends on that.
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
        """How many shards there are, for all bridges: `shards`, unless another number holds already."""
        keys = [self._names.shards, self._names.first.lease]
        return int(await self._runner.run("shards", keys, [shards]))

    async def sign_of_life(self, instance: str, life_ms: int) -> tuple[int, int]:
        """Count as alive for `life_ms`, or, if that is 0, no longer. The place among those alive, and their number."""
        place, count = await self._runner.run("members", [self._names.members], [instance, life_ms])
        return place, count

    async def exchange(self, watermarks: Sequence[tuple[str, str]]) -> tuple[int, dict[str, str]]:
        """Say up to when notifications were handled, in a cluster. Redis's clock, and what all bridges have said."""
        words = [word for watermark in watermarks for word in watermark]
        now_ms, flat = await self._runner.run("seen", [self._names.watermarks], words)
        said = iter(word.decode(errors="replace") for word in flat)
        return now_ms, dict(zip(said, said, strict=True))
