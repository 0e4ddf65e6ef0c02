"""Who may write to Kafka, and how they prove it: all ways on one server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.errors import NotConnected, Refused
from bridge.limits import KafkaLimits
from tests.support.brokers.caller import Caller, Rejected, TakenLater
from tests.support.brokers.kafka import KafkaServer
from tests.support.brokers.kafka_access import ANN, MECHANISMS, SECRET, as_ann, at, with_certificate
from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.brokers.rigs import deliver, ids, messages


@pytest.fixture
async def rig(secure_kafka: KafkaServer) -> AsyncIterator[KafkaRig]:
    async with KafkaRig(secure_kafka) as made:
        await made.create()
        await made.allow("ann", "write")
        yield made
        await made.forbid("ann")


async def works(sink: Caller) -> None:
    try:
        await sink.open()
        await sink.publish(messages(1))
    finally:
        await sink.close()


async def refused(sink: Caller, reason: str) -> None:
    try:
        with pytest.raises(Refused, match=reason) as caught:
            await sink.open()
    finally:
        await sink.close()
    assert SECRET not in str(caught.value)


# Logging in


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_a_user_with_a_password_may_come_in(rig: KafkaRig, mechanism: str) -> None:
    await works(rig.sink(**as_ann(rig.server, mechanism)))
    assert await rig.stored() == ids(messages(1))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_a_user_with_a_password_may_come_in_over_tls(rig: KafkaRig, certificates: Path, mechanism: str) -> None:
    settings = at(rig.server, "TLSLOGIN") | ANN | {"kafka_tls_ca_file": certificates / "ca.pem"}
    await works(rig.sink(**settings, kafka_sasl_mechanism=mechanism))
    assert await rig.stored() == ids(messages(1))


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("wrong", [{"kafka_sasl_password": f"{SECRET}3"}, {"kafka_sasl_username": "bob"}])
async def test_wrong_credentials_are_refused_naming_the_settings(
    rig: KafkaRig, mechanism: str, wrong: dict[str, str]
) -> None:
    await refused(
        rig.sink(**as_ann(rig.server, mechanism, **wrong)),
        "check BRIDGE_KAFKA_SASL_USERNAME and BRIDGE_KAFKA_SASL_PASSWORD",
    )


async def test_a_mechanism_that_the_listener_lacks_is_refused(rig: KafkaRig, certificates: Path) -> None:
    settings = at(rig.server, "TLSLOGIN") | ANN | {"kafka_tls_ca_file": certificates / "ca.pem"}
    await refused(rig.sink(**settings, kafka_sasl_mechanism="SCRAM-SHA-256"), "BRIDGE_KAFKA_SASL_MECHANISM")


async def test_a_rotated_password_needs_no_restart(rig: KafkaRig, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old\n")
    settings = as_ann(rig.server, kafka_sasl_password_file=file)
    del settings["kafka_sasl_password"]
    sink = rig.sink(**settings)
    await refused(sink, "refuses the credentials")
    file.write_text(f"{SECRET}\n")
    await works(sink)
    file.unlink()
    await refused(sink, "BRIDGE_KAFKA_SASL_PASSWORD")


# TLS


@pytest.mark.parametrize("key", [{"key": "client.key"}, {"key": "locked.key", "password": SECRET}])
async def test_a_client_certificate_may_come_in(rig: KafkaRig, certificates: Path, key: dict[str, str]) -> None:
    await works(rig.sink(**with_certificate(rig.server, certificates, **key)))
    assert await rig.stored() == ids(messages(1))


async def test_what_is_wrong_with_tls_is_refused_naming_the_settings(rig: KafkaRig, certificates: Path) -> None:
    right = with_certificate(rig.server, certificates)
    none = {"kafka_tls_cert_file": None, "kafka_tls_key_file": None}
    await refused(rig.sink(**right | none), "BRIDGE_KAFKA_TLS_CERT_FILE")
    await refused(rig.sink(**right | {"kafka_tls_ca_file": None}), "not trusted .*BRIDGE_KAFKA_TLS_CA_FILE")
    [address] = right["kafka_bootstrap_servers"]
    elsewhere = {"kafka_bootstrap_servers": [address.replace("127.0.0.1", "localhost")]}
    await refused(rig.sink(**right | elsewhere), "mismatch.*the host in BRIDGE_KAFKA_BOOTSTRAP_SERVERS")
    for name in ("expired", "stranger"):
        files = {
            "kafka_tls_cert_file": certificates / f"{name}.pem",
            "kafka_tls_key_file": certificates / f"{name}.key",
        }
        await refused(rig.sink(**right | files), r"(CERTIFICATE|UNKNOWN_CA).*BRIDGE_KAFKA_TLS_CERT_FILE")
    other = {"kafka_tls_key_file": certificates / "server.key"}
    await refused(rig.sink(**right | other), "KEY_VALUES_MISMATCH.*BRIDGE_KAFKA_TLS_KEY_FILE")
    for password in ("", f"{SECRET}3"):
        locked = with_certificate(rig.server, certificates, "locked.key", password)
        await refused(rig.sink(**locked), "the TLS files for Kafka do not work .*BRIDGE_KAFKA_TLS_KEY_PASSWORD")
    rubbish = certificates / "rubbish"
    rubbish.write_text("no certificate")
    await refused(rig.sink(**right | {"kafka_tls_ca_file": rubbish}), "the TLS files for Kafka do not work")


async def test_a_listener_for_another_protocol_is_not_connected_with_a_hint(rig: KafkaRig, certificates: Path) -> None:
    plain = {"kafka_security_protocol": "PLAINTEXT"}
    tls = {"kafka_security_protocol": "SSL", "kafka_tls_ca_file": certificates / "ca.pem"}
    for settings in (at(rig.server, "LOGIN") | plain, at(rig.server, "LOGIN") | tls, at(rig.server, "TLSLOGIN") | tls):
        with pytest.raises(NotConnected, match=r"closed the connection: .*BRIDGE_KAFKA_SECURITY_PROTOCOL"):
            await rig.sink(KafkaLimits(greeting=2), **settings).open()
    settings = as_ann(rig.server) | {"kafka_bootstrap_servers": [rig.server.address]}
    await refused(rig.sink(**settings), "does not offer this way to log in: .*BRIDGE_KAFKA_SECURITY_PROTOCOL")


async def test_one_server_of_the_list_is_enough(rig: KafkaRig) -> None:
    servers = ["127.0.0.1:1", rig.server.address]
    await works(rig.sink(kafka_bootstrap_servers=servers))
    with pytest.raises(NotConnected, match=r"127\.0\.0\.1:1 cannot be reached"):
        await rig.sink(kafka_bootstrap_servers=servers[:1]).open()


# Rights


async def test_a_user_who_may_write_nothing_is_refused(rig: KafkaRig) -> None:
    await rig.forbid("ann")
    await refused(rig.sink(**as_ann(rig.server)), "may not write to any topic: allow it to")


async def test_a_user_who_may_not_write_to_the_topic_is_refused(rig: KafkaRig) -> None:
    other = f"{rig.topic}-other"
    await rig.create(other)
    await refused(rig.sink(**as_ann(rig.server), kafka_topic=other), f"may not write to topic {other}: allow it to")
    await rig.allow("ann", "describe", other)
    await refused(rig.sink(**as_ann(rig.server), kafka_topic=other), f"may not write to topic {other}: allow it to")


async def test_a_user_who_may_not_create_the_topic_is_refused(rig: KafkaRig) -> None:
    other = f"{rig.topic}-other"
    await rig.allow("ann", "write", other)
    await refused(
        rig.sink(**as_ann(rig.server), kafka_topic=other), f"topic {other} does not exist, and .* may not create it"
    )
    await rig.allow("ann", "create", other)
    await works(rig.sink(**as_ann(rig.server), kafka_topic=other))


async def test_a_right_that_is_taken_away_and_given_back_costs_nothing(rig: KafkaRig) -> None:
    sink = rig.sink(KafkaLimits(topic_recheck=0.2), **as_ann(rig.server))
    await sink.open()
    await rig.allow("ann", "write", f"{rig.topic}-other")
    await rig.forbid("ann", rig.topic)
    with pytest.raises(TakenLater, match=r"TOPIC_AUTHORIZATION_FAILED|may not write to topic"):
        await until_it_fails(sink)
    with pytest.raises(TakenLater, match="may not write to topic"):
        await sink.publish(messages(1))
    assert sink.connected
    await rig.allow("ann", "write")
    batch = messages(100, first=1000)
    await deliver(sink, batch)
    await sink.close()
    assert set(ids(batch)) <= set(await rig.stored())


async def test_a_prefix_that_the_user_may_not_write_is_rejected_and_all_else_is_stored(
    rig: KafkaRig,
) -> None:
    for prefix in ("share", "secret"):
        await rig.create(f"{rig.topic}.{prefix}")
    await rig.allow("ann", "write", f"{rig.topic}.share")
    await rig.allow("ann", "describe", f"{rig.topic}.secret")
    batch = messages(0, keys=[b"share:1", b"secret:1", b"hidden:1"])
    sink = rig.sink(KafkaLimits(topic_recheck=0.2), **as_ann(rig.server), kafka_topic=f"{rig.topic}.{{prefix}}")
    await sink.open()
    with pytest.raises(Rejected) as caught:
        await sink.publish(batch)
    assert caught.value.reasons.keys() == {1, 2}
    for reason in caught.value.reasons.values():
        assert reason == "the Kafka user may not write to the message's topic: allow it to (ACL operation Write)"
    assert sink.connected
    await rig.allow("ann", "write", f"{rig.topic}.secret")
    async with asyncio.timeout(10):
        while 1 in caught.value.reasons:
            with pytest.raises(Rejected) as caught:
                await sink.publish(batch)
    await sink.close()
    assert len(await rig.records(f"{rig.topic}.secret")) == 1


async def test_where_the_limit_is_not_told_the_broker_is_asked(rig: KafkaRig) -> None:
    await rig.configure(max_message_bytes="7000")
    small, large = messages(50), messages(0, keys=[b"x" * 8000], first=500)
    sink = rig.sink(**as_ann(rig.server))
    await sink.open()
    await deliver(sink, small)
    with pytest.raises(Rejected, match=r"more than the topic takes \(MESSAGE_SIZE_TOO_LARGE, error 10") as caught:
        await deliver(sink, [*messages(50, first=100), *large, *messages(50, first=200)])
    assert caught.value.reasons.keys() == {50}
    await sink.close()
    assert set(await rig.stored()) == {*ids(small), *ids(messages(50, first=100)), *ids(messages(50, first=200))}


async def until_it_fails(sink: Caller) -> None:
    async with asyncio.timeout(10):
        while True:
            await sink.publish(messages(1))
