"""The ledger protocol on a real server: Hypothesis takes the steps, in any order, and shrinks what goes wrong.

A few examples, because the simulation (`tests/simulation`) tries far more on a server that it simulates.

A key expires when the machine has it read. `EXPIRY_TEST_EXAMPLES` and `EXPIRY_TEST_STEPS` make it search longer. A
counter-example that is found belongs into `test_traces.py`, with a name.
"""

import asyncio
import operator as op
import os
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.support.harness.checked_server import KEYS, LONG_MS, SHORT_MS
from tests.support.harness.play import Play
from tests.support.harness.user import LAZY
from tests.support.redis.commands import lazily, user_of
from tests.support.servers import RedisServer

pytestmark = pytest.mark.unmeasured

EXAMPLES = int(os.environ.get("EXPIRY_TEST_EXAMPLES", "20"))
STEPS = int(os.environ.get("EXPIRY_TEST_STEPS", "40"))


def when(condition: Callable[[Play], object]) -> Callable[[Any], Any]:
    """A rule's precondition. It may not depend on what the servers do, whose timing is their own."""
    return precondition(lambda machine: bool(condition(machine.play)))


keys = st.sampled_from([KEYS[0], KEYS[0], *KEYS])  # most of what can go wrong needs one key alone
ends = st.sampled_from(["", "expire", "DEL", "DEL, SET"])
thens = st.sampled_from([None, SHORT_MS, LONG_MS])
lasts = st.just("") | ends
few = st.integers(0, 2)
seldom = st.sampled_from([False, False, True])
ttls = st.sampled_from([SHORT_MS, LONG_MS])
counts = st.integers(1, 5)


class Machine(RuleBasedStateMachine):
    """Takes the steps of a play."""

    def __init__(self, runner: asyncio.Runner, play: Play) -> None:
        super().__init__()
        self.play = play
        self._runner = runner
        self._sound = True
        self._do(play.open())

    # The user.

    @rule(command=st.sampled_from(["SET", "SET", "PEXPIREAT"]), key=keys, ttl=ttls)
    def live(self, command: str, key: bytes, ttl: int) -> None:
        self._do(self.play.live(command, key, ttl))

    @rule(key=keys, command=st.sampled_from(["SET", "PERSIST", "DEL", "RENAME", "DEL, SET"]))
    def alter(self, key: bytes, command: str) -> None:
        self._do(self.play.alter(command, key))

    @rule()
    def read(self) -> None:
        self._do(self.play.read())

    @rule(read=st.booleans())
    def wait(self, *, read: bool) -> None:
        self._do(self.play.wait())
        if read:
            self.read()

    @when(Play.connected)
    @rule(key=keys, first=ttls, end=ends, cut=seldom, then=thens, found=seldom.map(op.not_), last=lasts, count=few)
    def live_twice(
        self, *, key: bytes, first: int, end: str, cut: bool, then: int | None, found: bool, last: str, count: int
    ) -> None:
        """What most of the protocol's rules are about: a recorded key has a second life before the first is handled."""
        self.live("SET", key, first)
        self.catch_up(close=False)
        self.end(key, end)
        if cut:
            self.crash(0, another=False)
        if then is not None:
            self.live("SET", key, then)
        if found:
            self.scan()
        self.end(key, last)
        self.hear()
        if count:
            self._do(self.play.handle(count))

    def end(self, key: bytes, how: str) -> None:
        if how == "expire":
            self.wait(read=True)
        elif how:
            self.alter(key, how)

    # The bridge.

    @when(Play.connected)
    @rule()
    def hear(self) -> None:
        self._do(self.play.hand.hear())

    @when(Play.connected)
    @rule()
    def handle_one(self) -> None:
        self._do(self.play.handle(1))

    @when(Play.connected)
    @rule(count=counts)
    def handle(self, count: int) -> None:
        self._do(self.play.handle(count))

    @when(Play.connected)
    @rule(mode=st.sampled_from(["due", "walk"]))
    def touch(self, mode: str) -> None:
        self._do(self.play.touch(mode))

    @when(Play.connected)
    @rule(count=few, listed=st.booleans())
    def scan(self, count: int = 0, *, listed: bool = False) -> None:
        self._do(self.play.scan(count, listed=listed))

    @when(Play.connected)
    @rule(close=st.booleans())
    def catch_up(self, *, close: bool) -> None:
        self._do(self.play.reconcile() if close else self.play.handle_all())

    @rule(count=counts)
    def settle(self, count: int) -> None:
        self._do(self.play.settle(count))

    # What goes wrong.

    @when(Play.connected)
    @rule(count=counts, applied=st.booleans())
    def lose_reply(self, count: int, *, applied: bool) -> None:
        self._do(self.play.lose_reply(count, applied=applied))

    @when(lambda play: not play.connected())
    @rule()
    def begin_again(self) -> None:
        self._do(self.play.begin_again())

    @rule(count=counts, another=st.booleans())
    def crash(self, count: int, *, another: bool) -> None:
        self._do(self.play.take_over(count) if another else self.play.crash(count))

    @when(lambda play: play.late)
    @rule()
    def arrive_late(self) -> None:
        self._do(self.play.arrive_late())

    @when(lambda play: play.stale)
    @rule()
    def act_stale(self) -> None:
        self._do(self.play.act_stale())

    def teardown(self) -> None:
        try:
            if self._sound:
                self._do(self.play.finish())
        finally:
            self._runner.run(self.play.close())

    def _do(self, step: Awaitable[object]) -> None:
        async def taken() -> None:
            await step

        try:
            self._runner.run(taken())
        except BaseException:
            self._sound = False
            raise


@pytest.mark.slow
def test_whatever_the_order_of_steps_nothing_is_lost_invented_or_told_twice(redis_kind: type[RedisServer]) -> None:
    with redis_kind(LAZY) as server, asyncio.Runner() as runner:
        opened = user_of(server)
        user = runner.run(opened.__aenter__())
        try:
            runner.run(lazily(user))
            run_state_machine_as_test(
                cast("type[Machine]", lambda: Machine(runner, Play(server, user))),
                settings=settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=STEPS,
                    deadline=None,
                    print_blob=True,
                    suppress_health_check=list(HealthCheck),
                    phases=[phase for phase in Phase if phase is not Phase.explain],
                ),
            )
        finally:
            runner.run(opened.__aexit__(None, None, None))
