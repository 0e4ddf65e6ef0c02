"""What a match of `BRIDGE_KEYS` costs, counted in the steps of a backtracking matcher: never in seconds."""

import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from itertools import chain, islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.redis.protocol.patterns import expression, matcher

pytestmark = pytest.mark.unmeasured

STEPS_A_PAIR = 4
"""For each pair of a byte of the patterns and a byte of the key."""
parse: Any = import_module("re._parser").parse  # what `re.compile` itself makes its programs of

Operation = tuple[object, Any]
Program = Iterable[Operation]


class TooMany(Exception):
    """More steps than allowed."""


class Steps:
    """Matches as `re` does, without its shortcuts, and counts each look at a byte of the key."""

    def __init__(self, key: bytes, budget: int) -> None:
        self.key, self.budget = key, budget

    def fullmatch(self, program: Program) -> bool:
        return any(end == len(self.key) for end in self.ends(list(program), 0))

    def ends(self, program: Sequence[Operation], at: int) -> Iterator[int]:
        """Where a match that begins at `at` may end, in the order in which `re` finds it out."""
        if not program:
            yield at
            return
        for between in self.one(program[0], at):
            yield from self.ends(program[1:], between)

    def one(self, operation: Operation, at: int) -> Iterator[int]:
        kind, argument = str(operation[0]), operation[1]
        self.step()
        if kind in {"MAX_REPEAT", "MIN_REPEAT"}:
            least, most, repeated = argument
            yield from self.repeated(repeated, range(at + least, at + int(most) + 1), greedy=kind == "MAX_REPEAT")
        elif kind == "ATOMIC_GROUP":
            yield from islice(self.ends(list(argument), at), 1)
        elif kind == "SUBPATTERN":
            yield from self.ends(list(argument[-1]), at)
        elif kind == "BRANCH":
            yield from chain.from_iterable(self.ends(list(way), at) for way in argument[1])
        elif kind == "ASSERT_NOT":
            yield from () if any(True for _ in self.ends(list(argument[1]), at)) else (at,)
        elif kind == "AT":
            assert str(argument) == "AT_END_STRING"
            yield from (at,) if at == len(self.key) else ()
        elif at < len(self.key) and self.fits(operation, self.key[at]):
            yield at + 1

    def repeated(self, program: Program, ends: range, *, greedy: bool) -> Iterator[int]:
        assert [str(kind) for kind, _ in program] == ["ANY"]
        ends = range(ends.start, min(ends.stop, len(self.key) + 1))
        for end in reversed(ends) if greedy else ends:
            self.step()
            yield end

    def step(self) -> None:
        self.budget -= 1
        if self.budget < 0:
            raise TooMany

    def fits(self, operation: Operation, byte: int) -> bool:
        match str(operation[0]), operation[1]:
            case "ANY", _:
                return True
            case "LITERAL", wanted:
                return bool(byte == wanted)
            case "NOT_LITERAL", unwanted:
                return bool(byte != unwanted)
            case "RANGE", (low, high):
                return bool(low <= byte <= high)
            case "IN", members:
                negated = str(members[0][0]) == "NEGATE"
                return negated != any(self.fits(member, byte) for member in members[negated:])
            case unknown, _:
                raise AssertionError(unknown)


def assert_bounded(patterns: list[str], key: bytes) -> None:
    regex = expression(patterns)
    assert regex is not None
    budget = STEPS_A_PAIR * (len(",".join(patterns)) + 1) * (len(key) + 1)
    steps = Steps(key, budget)
    try:
        matched = steps.fullmatch(parse(regex, re.DOTALL))
    except TooMany:
        pytest.fail(f"{patterns} took more than {budget} steps with {key[:60]!r}, {len(key)} bytes")
    match = matcher(patterns)
    assert match is not None
    assert matched is bool(match(key)), "the count is of another match"


@pytest.mark.parametrize(
    ("patterns", "key"),
    [
        (["*:*:*:lock"], b":" * 4096),
        (["*:*:*:lock", "*:*:*:*:*:*"], b":" * 4096),
        (["*a*a*a*a*b"], b"a" * 4096),
        (["*aaaa*aaab"], b"a" * 4096),
        (["*:cart:*:item:*"], b":cart:" * 700),
        (["*[ab]?*[^b]?*c"], b"ab" * 2048),
        (["*", "!*:*:*:lock"], b":" * 4096),
        (["*x*y*z", "!*:*:*:lock", "!*:?*:?*:?*x"], b":" * 4096),
    ],
)
def test_the_worst_keys_cost_no_more_than_their_length_times_that_of_the_patterns(
    patterns: list[str], key: bytes
) -> None:
    assert_bounded(patterns, key)


PART = st.sampled_from(["a", "b", ":", "?", "[ab]", "[^b]", "*", "*", "*"])
GLOBS = st.lists(PART, min_size=1, max_size=12).map("".join).filter(lambda glob: glob.strip("*"))


@settings(max_examples=300, deadline=None)
@given(st.lists(GLOBS, min_size=1, max_size=3), st.lists(GLOBS, max_size=2), st.text("ab:", max_size=5), st.data())
def test_any_patterns_cost_no_more_than_that(
    wanted: list[str], unwanted: list[str], unit: str, data: st.DataObject
) -> None:
    key = unit.encode() * data.draw(st.integers(0, 60)) + data.draw(st.text("ab:", max_size=4)).encode()
    assert_bounded([*wanted, *(f"!{glob}" for glob in unwanted)], key)
