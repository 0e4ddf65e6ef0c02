"""Tokens for OAUTHBEARER: of a file, of a token service (`oidc`), or of the user's own provider.

Guarantees: each login asks anew; a token service is asked once for all that wait, and again before its token ends.
Whoever waits, waits for some seconds at most; what hangs is asked anew (`Questions`). No message holds a token, or the
words of others' code.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError

from bridge.clock import Clock
from bridge.errors import Refused
from bridge.limits import KafkaLimits
from bridge.providers import Questions, is_text, provider, words
from bridge.settings import Settings
from bridge.settings.values import read_secret
from bridge.sinks.kafka.oidc import Client, TokenService
from bridge.tasks import in_thread

PROVIDER = "BRIDGE_KAFKA_SASL_OAUTH_PROVIDER"
FILE = "BRIDGE_KAFKA_SASL_OAUTH_TOKEN_FILE"


class NoToken(KafkaError):  # type: ignore[misc]  # the library has no types
    """There is no token. A KafkaError, so that the library takes it for a failure of the one connection."""

    def __init__(self, found: str, remedy: str, *, refused: bool = False) -> None:
        super().__init__(found)
        self.found = found
        self.remedy = remedy
        self.refused = refused
        """Whether an operator has to act before there can be one."""


class Tokens(AbstractTokenProvider):  # type: ignore[misc]  # likewise
    """What the library asks at each login."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[object]],
        extensions: Callable[[], Mapping[str, str]],
        clock: Clock,
        limits: KafkaLimits,
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        self.forget = forget
        """A broker has refused the token."""
        self._ask = ask
        self._extensions = extensions
        self._clock = clock
        self._limits = limits

    async def token(self) -> str:
        """See the library. Raises NoToken."""
        seconds = self._limits.token
        try:
            async with self._clock.timeout(seconds):
                token = await self._ask()
        except TimeoutError:
            raise NoToken(f"no token came within {seconds:g} s", "check its source") from None
        if not isinstance(token, str) or not is_text(token):
            raise NoToken(f"{PROVIDER} gives no token", "have it return a text")
        return token

    def extensions(self) -> Mapping[str, str]:
        """See the library."""
        return self._extensions()


def tokens_of(settings: Settings, clock: Clock, limits: KafkaLimits) -> Tokens:
    """Those of the settings, which ask for OAUTHBEARER. Raises ConfigurationError: there is no such provider."""
    given = dict(pair.split("=", 1) for pair in settings.kafka_sasl_oauth_extensions or ())
    if settings.kafka_sasl_oauth_provider is not None:
        name = settings.kafka_sasl_oauth_provider
        own = _provider(name)
        asked = _asked(name)
        return Tokens(lambda: asked.token(clock), getattr(own, "extensions", dict), clock, limits)
    if settings.kafka_sasl_oauth_token_file is not None:
        path = settings.kafka_sasl_oauth_token_file
        return Tokens(lambda: _of_file(path), lambda: given, clock, limits)
    service = _service(
        Client(
            settings.kafka_sasl_oauth_token_url or "",
            settings.kafka_sasl_oauth_client_id or "",
            settings.kafka_sasl_oauth_client_secret,
            settings.kafka_sasl_oauth_client_secret_file,
            settings.kafka_sasl_oauth_scope,
        )
    )
    return Tokens(lambda: _of_service(service, settings, clock), lambda: given, clock, limits, service.forget)


class _Provider(Protocol):
    token: Callable[[], Any]


def _fitting(found: object) -> _Provider | None:
    return found if callable(getattr(found, "token", None)) else None  # type: ignore[return-value]  # now it is one


@cache
def _provider(name: str) -> _Provider:
    return provider(PROVIDER, name, _fitting, "token provider of aiokafka")


@cache
def _service(client: Client) -> TokenService:
    return TokenService(client)


class _Asked:
    """The user's own provider."""

    def __init__(self, own: _Provider) -> None:
        self._own = own
        self._questions = Questions[object]("token")

    async def token(self, clock: Clock) -> object:
        """What it gives. Raises NoToken."""
        asking = self._questions.ask(clock, self._call)
        await asyncio.wait([asking])
        if asking.cancelled():
            raise NoToken(f"{PROVIDER} gives no token (it does not return)", "have it give up in time")
        return asking.result()

    async def _call(self) -> object:
        try:
            if inspect.iscoroutinefunction(self._own.token):
                return await self._own.token()
            return await in_thread(self._own.token)
        except Exception as error:  # noqa: BLE001 - it is code of others
            raise NoToken(f"{PROVIDER} gives no token ({words(error)})", "look at where it gets it from") from None


@cache
def _asked(name: str) -> _Asked:
    return _Asked(_provider(name))


async def _of_file(path: Path) -> str:
    try:
        return read_secret(path)
    except ValueError as error:
        raise NoToken(f"{FILE}: {error}", "write the token there", refused=True) from None


async def _of_service(service: TokenService, settings: Settings, clock: Clock) -> str:
    try:
        secret = settings.secret("kafka_sasl_oauth_client_secret") or ""
    except Refused as error:
        raise NoToken(error.found, error.remedy or "write the secret there", refused=True) from None
    answer = await service.token(secret, clock)
    if answer.token is None:
        raise NoToken(answer.found, answer.remedy, refused=answer.refused)
    return answer.token
