"""Logins of a credentials provider (`BRIDGE_REDIS_CREDENTIALS_PROVIDER`), which gives another one from time to time.

Each connection begins with the login that the provider gives then. Beyond that, the provider is asked every few
seconds, and open connections are logged in with a new login, because servers end connections whose login has expired.

Guarantees: the provider is asked once at a time, for all connections of the process. Callers wait for some seconds at
most, even if the provider takes longer. No message holds what it gives, or its own words.
"""

import asyncio
from dataclasses import dataclass, field
from functools import cache, partial

from redis.credentials import CredentialProvider, StreamingCredentialProvider

from bridge.clock import Clock
from bridge.errors import NotConnected
from bridge.limits import WireLimits
from bridge.providers import Questions, is_text, provider, words
from bridge.tasks import in_thread

VARIABLE = "BRIDGE_REDIS_CREDENTIALS_PROVIDER"
NEVER = float("-inf")
_PARTS = range(1, 3)


@dataclass(frozen=True, slots=True)
class Login:
    """What AUTH takes."""

    user: str | None
    """None: the default user."""
    password: str = field(repr=False)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of AUTH."""
        return (self.user, self.password) if self.user else (self.password,)


class NoLogin(NotConnected):
    """The provider gives none."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{VARIABLE} gives no login ({why})", "look at where it gets it from")


class Logins:
    """What one provider gives."""

    def __init__(self, provider: CredentialProvider) -> None:
        self.known: Login | None = None
        """The last one."""
        self._provider = provider
        self._asked_at = NEVER
        self._questions = Questions[Login]("login")
        if isinstance(provider, StreamingCredentialProvider):  # it says when it has another one, from any thread
            provider.on_next(lambda _token: self.doubt())
            provider.on_error(lambda _error: self.doubt())

    async def fresh(self, clock: Clock, limits: WireLimits) -> Login:
        """What the provider gives now, for a new connection. Raises NoLogin."""
        asking = self._ask(clock)
        if not await clock.first([asking], limits.login) or asking.cancelled():
            in_vain = self._questions.given_up
            raise NoLogin(f"no answer within {limits.login:g} s{f'; asked in vain before: {in_vain}' * (in_vain > 0)}")
        return asking.result()

    def look(self, clock: Clock, limits: WireLimits) -> Login | None:
        """The last login. If it is some time old, also ask again, without waiting for the answer."""
        if clock.monotonic() - self._asked_at >= limits.login_look:
            self._ask(clock)
        return self.known

    def doubt(self) -> None:
        """There may be another one: ask at the next look."""
        self._asked_at = NEVER

    def _ask(self, clock: Clock) -> asyncio.Task[Login]:
        return self._questions.ask(clock, partial(self._answer, clock))

    async def _answer(self, clock: Clock) -> Login:
        self._asked_at = clock.monotonic()  # not at each look: a doubt is newer than the question under way
        try:
            given = await self._call()
        except Exception as error:  # noqa: BLE001 - it is code of others
            raise NoLogin(words(error)) from None
        if not isinstance(given, tuple | list) or len(given) not in _PARTS or not all(map(is_text, given)):
            raise NoLogin("it must be user and password, or a password")
        *user, password = given
        self.known = Login(user[0] if user else None, password)
        return self.known

    async def _call(self) -> object:
        """Call it in a thread if possible: the async method of many providers is asynchronous only in name."""
        try:
            return await in_thread(self._provider.get_credentials)
        except NotImplementedError:
            return await self._provider.get_credentials_async()


@cache
def logins_of(name: str) -> Logins:
    """Those of the provider that the setting names, the same for the whole process. Raises ConfigurationError."""
    return Logins(provider(VARIABLE, name, _fitting, "CredentialProvider of redis-py"))


def _fitting(found: object) -> CredentialProvider | None:
    return found if isinstance(found, CredentialProvider) else None
