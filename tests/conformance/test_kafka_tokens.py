"""Tokens for Kafka (OAUTHBEARER): where they come from, what becomes of bad ones, and that their end costs nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import BridgeError, ConfigurationError, NotConnected, Refused
from bridge.limits import KafkaLimits
from tests.support.brokers.caller import Caller
from tests.support.brokers.kafka import KafkaServer
from tests.support.brokers.kafka_access import at
from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.brokers.rigs import ids, messages
from tests.support.brokers.tokens import CLIENT, OWN, PROVIDER, SECRET, TokenService, token

LIMITS = KafkaLimits(probe=0.1, token=0.5)


@pytest.fixture
async def rig(secure_kafka: KafkaServer) -> AsyncIterator[KafkaRig]:
    async with KafkaRig(secure_kafka) as made:
        await made.create()
        await made.allow("ann", "write")
        yield made
        await made.forbid("ann")


@pytest.fixture
async def service() -> AsyncIterator[TokenService]:
    async with TokenService.serving() as made:
        yield made


def with_token(rig: KafkaRig, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 - of any field's type
    """The settings of a sink that logs in so."""
    return at(rig.server, "TOKEN") | {"kafka_sasl_mechanism": "OAUTHBEARER"} | settings


def as_client(rig: KafkaRig, service: TokenService, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 - likewise
    """The settings of a sink that asks the service for its tokens."""
    client = {"kafka_sasl_oauth_client_id": CLIENT, "kafka_sasl_oauth_client_secret": SECRET}
    return with_token(rig, kafka_sasl_oauth_token_url=service.url, **client) | settings


async def works(rig: KafkaRig, settings: dict[str, Any]) -> None:
    async with rig.opened(LIMITS, **settings) as sink:
        await sink.publish(messages(1))
    assert set(await rig.stored()) == set(ids(messages(1)))


async def fails(rig: KafkaRig, settings: dict[str, Any], why: str, kind: type[BridgeError] = NotConnected) -> None:
    await is_refused(rig.sink(LIMITS, **settings), why, kind)


async def is_refused(sink: Caller, why: str, kind: type[BridgeError]) -> None:
    with pytest.raises(BridgeError, match=why) as caught:
        await sink.open()
    await sink.close()
    assert isinstance(caught.value, kind), caught.value
    assert SECRET not in str(caught.value)


async def test_a_token_may_come_from_a_file_which_is_read_at_each_login(rig: KafkaRig, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{token(seconds=-10)}\n")
    extensions = ["logicalCluster=lkc-1", "identityPoolId=pool-1"]
    settings = with_token(rig, kafka_sasl_oauth_token_file=file, kafka_sasl_oauth_extensions=extensions)
    sink = rig.sink(LIMITS, **settings)
    await is_refused(sink, r"refuses the token: check who issues it", Refused)
    file.write_text(f"{token()}\n")
    await works(rig, settings)
    file.unlink()
    await is_refused(sink, "BRIDGE_KAFKA_SASL_OAUTH_TOKEN_FILE: must be a file that can be read", Refused)


async def test_a_token_service_is_asked_once_while_its_token_lasts(rig: KafkaRig, service: TokenService) -> None:
    settings = as_client(rig, service, kafka_sasl_oauth_scope="kafka/.default")
    await works(rig, settings)
    await works(rig, settings)
    assert service.asked == [
        {"grant_type": "client_credentials", "scope": "kafka/.default", "login": f"client%20of%20the%20test:{SECRET}"}
    ]


async def test_what_a_token_service_answers_instead_is_said_and_tried_again(
    rig: KafkaRig, service: TokenService, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}-wrong")
    settings = as_client(rig, service, kafka_sasl_oauth_client_secret_file=file)
    del settings["kafka_sasl_oauth_client_secret"]
    await fails(rig, settings, r"/token gives no token \(invalid_client\): check BRIDGE_KAFKA_SASL_OAUTH_CL", Refused)
    file.write_text(SECRET)
    for answer, why, kind in (
        ((500, SECRET), r"gives no token now \(HTTP status 500\)", NotConnected),
        ((429, '{"error":"slow_down"}'), r"gives no token now \(slow_down\)", NotConnected),
        ((307, ""), r"gives no token now \(HTTP status 307\)", NotConnected),
        ((400, f'{{"error":"{SECRET} {SECRET}"}}'), r"gives no token \(HTTP status 400\)", Refused),
        ((200, f'["{SECRET}"]'), "answers without a token", NotConnected),
        ((200, '{"access_token":""}'), "answers without a token", NotConnected),
    ):
        service.answer = answer
        await fails(rig, settings, why, kind)
    service.answer = None
    service.answers.clear()
    await fails(rig, settings, r"no token came within 0\.5 s: check its source")
    nowhere = service.url.replace("127.0.0.1", "127.0.0.2")
    await fails(rig, settings | {"kafka_sasl_oauth_token_url": nowhere}, r"cannot be reached \(ConnectionRefusedError")
    async with TokenService.serving() as other:  # the first one may still be at an abandoned question
        await works(rig, settings | {"kafka_sasl_oauth_token_url": other.url})


async def test_a_token_that_the_brokers_refuse_is_not_given_to_them_again(rig: KafkaRig, service: TokenService) -> None:
    service.answer = 200, f'{{"access_token":"{token(seconds=-10)}","expires_in":3600}}'
    await fails(rig, as_client(rig, service), "refuses the token", Refused)
    service.answer = None
    await works(rig, as_client(rig, service))


async def test_a_provider_of_the_users_own_may_give_tokens_and_fail(rig: KafkaRig) -> None:
    settings = with_token(rig, kafka_sasl_oauth_provider=PROVIDER)
    for gives, why in (
        (RuntimeError(SECRET), r"BRIDGE_KAFKA_SASL_OAUTH_PROVIDER gives no token \(RuntimeError\)"),
        (None, "gives no token: have it return a text"),
    ):
        OWN.gives = gives
        await fails(rig, settings, why)
    OWN.gives, OWN.adds = "rubbish", {}
    await fails(rig, settings, "refuses the token", Refused)
    OWN.gives, OWN.adds = token(), {"identityPoolId": "pool-1"}
    await works(rig, settings)
    OWN.gives = token("bob")
    await fails(rig, settings, "may not write to any topic", Refused)
    for name in ("no_such_module:provider", "tests.support.brokers.tokens:SECRET"):
        with pytest.raises(ConfigurationError, match=f"BRIDGE_KAFKA_SASL_OAUTH_PROVIDER: {name}"):
            await rig.sink(**settings | {"kafka_sasl_oauth_provider": name}).open()


async def test_the_end_of_a_token_ends_no_session_and_makes_no_copies(rig: KafkaRig, service: TokenService) -> None:
    service.seconds = 1.5
    async with rig.opened(LIMITS, **as_client(rig, service)) as sink:
        sent = 0
        async with asyncio.timeout(60):
            while len(service.asked) < 3:
                await sink.publish(messages(10, first=sent))
                sent += 10
                await asyncio.sleep(0.02)
        assert sink.connected
    stored = await rig.stored()
    assert len(stored) == len(set(stored)) == sent
