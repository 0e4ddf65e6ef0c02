"""Which dead letters are tried again."""

from typing import cast

from bridge.contracts import DeadLetter
from bridge.expiration import Expiration, Via
from bridge.redis.admin.dead_letters import DeadLetters, Kept, Position, Retrial


class Letters:
    """Dead letters in memory, a page at a time."""

    def __init__(self, *places: Position) -> None:
        self._kept = [Kept(place, DeadLetter(event(place), "too large")) for place in places]

    async def page(self, after: Position | None, limit: int) -> list[Kept]:
        """See `DeadLetters`."""
        return [kept for kept in self._kept if after is None or kept.position > after][:limit]


def event(place: Position) -> Expiration:
    return Expiration(f"{place}", b"k", 1, 2, Via.SWEEP)


async def tried(letters: Letters, last: dict[int, bytes]) -> list[Position]:
    retrial, found = Retrial(cast("DeadLetters", letters), last), list[Position]()
    while entries := await retrial.read(2):
        found += [(entry.shard, entry.id) for entry in entries]
    return found


async def test_newer_ones_of_one_shard_hide_none_of_the_next() -> None:
    newer = [(0, b"8-%d" % number) for number in range(5)]
    letters = Letters((0, b"7-0"), *newer, (1, b"7-0"), (1, b"7-1"), (1, b"9-0"), (3, b"7-0"))
    last = {0: b"7-0", 1: b"7-1", 3: b"7-0"}
    assert await tried(letters, last) == [(0, b"7-0"), (1, b"7-0"), (1, b"7-1"), (3, b"7-0")]


async def test_a_shard_that_had_none_when_it_began_is_passed_over() -> None:
    letters = Letters((0, b"8-0"), (0, b"8-1"), (0, b"8-2"), (1, b"7-0"))
    assert await tried(letters, {1: b"7-0"}) == [(1, b"7-0")]


async def test_nothing_is_tried_where_all_are_newer() -> None:
    assert await tried(Letters((0, b"8-0"), (1, b"8-0")), {}) == []
