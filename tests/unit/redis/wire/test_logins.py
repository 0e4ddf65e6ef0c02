"""A credentials provider that does not answer."""

import threading
from dataclasses import replace

import pytest
from redis.credentials import CredentialProvider

from bridge.limits import WireLimits
from bridge.redis.wire.logins import Login, Logins, NoLogin
from tests.support.hand_clock import HandClock
from tests.support.servers import wait_until

LIMITS = replace(WireLimits(), login=0.05)


class Hanging(CredentialProvider):
    """The first `hung` calls return when they are let go, with what is stale by then."""

    def __init__(self, hung: int) -> None:
        self.calls = 0
        self.go = threading.Event()
        self._hung = hung

    def get_credentials(self) -> tuple[str, str]:
        """See redis-py."""
        self.calls += 1
        if self.calls <= self._hung:
            self.go.wait()
            return "ann", "stale"
        return "ann", "new"


async def test_a_provider_that_hangs_is_asked_again_and_says_so_meanwhile() -> None:
    provider, clock = Hanging(hung=2), HandClock()
    logins = Logins(provider)
    try:
        for calls, seconds, why in (
            (1, 9, r"no answer within 0\.05 s\)"),
            (1, 1, r"no answer within 0\.05 s\)"),
            (2, 19, r"no answer within 0\.05 s; asked in vain before: 1\)"),
            (2, 1, r"no answer within 0\.05 s; asked in vain before: 1\)"),
        ):
            with pytest.raises(NoLogin, match=why):
                await logins.fresh(clock, LIMITS)
            assert provider.calls == calls
            clock.now += seconds
        assert await logins.fresh(clock, WireLimits()) == Login("ann", "new")
    finally:
        provider.go.set()
    for thread in threading.enumerate():
        if thread.name == "in-thread":
            thread.join()
    assert logins.known == Login("ann", "new")  # what comes late counts for nothing


async def test_a_look_besides_asks_a_provider_that_hangs_again() -> None:
    provider, clock = Hanging(hung=1), HandClock()
    logins = Logins(provider)
    try:
        assert logins.look(clock, LIMITS) is None
        await wait_until(lambda: provider.calls == 1)
        clock.now += 10
        assert logins.look(clock, LIMITS) is None
        assert await logins.fresh(clock, WireLimits()) == Login("ann", "new")
    finally:
        provider.go.set()


async def test_a_doubt_about_what_a_question_under_way_will_answer_asks_again() -> None:
    provider, clock = Hanging(hung=1), HandClock()
    logins = Logins(provider)
    try:
        logins.look(clock, LIMITS)
        await wait_until(lambda: provider.calls == 1)
        logins.doubt()
        logins.look(clock, LIMITS)  # as before every command
    finally:
        provider.go.set()
    await wait_until(lambda: logins.known == Login("ann", "stale"))
    logins.look(clock, LIMITS)
    await wait_until(lambda: logins.known == Login("ann", "new"))
