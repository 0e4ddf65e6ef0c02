"""`expiry-bridge check`, the way in to Kafka: who may not log in, or may not do something, learns what fixes it."""

import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bridge.commands.check.kafka import server
from bridge.limits import KafkaLimits
from tests.integration.doctor import Rows, examine_kafka, levels
from tests.support.brokers.kafka import KafkaServer
from tests.support.brokers.kafka_access import ANN, SECRET, as_ann, at, with_certificate
from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.proxy import TO_SERVER, Action

ALONE = {"Kafka/replication": "warn"}
"""What is always found of a topic of a single broker."""


@pytest.fixture
async def rig(secure_kafka: KafkaServer) -> AsyncIterator[KafkaRig]:
    async with KafkaRig(secure_kafka) as made:
        await made.create()
        yield made
        await made.forbid("ann")


async def fixed(rig: KafkaRig, rows: Rows, check: str) -> None:
    """Do what the remedy says, which must be to give `ann` a right."""
    text: str = rows[f"Kafka/{check}"]["remedy"]
    words = shlex.split(text[text.index("kafka-acls.sh") :])
    server = f"--bootstrap-server 127.0.0.1:{rig.server.ports['LOGIN']} --command-config admin.properties"
    assert words[:8] == ["kafka-acls.sh", *server.split(), "--add", "--allow-principal", "User:ann"]
    assert words[8::2] == ["--operation", "--topic"]
    await rig.allow("ann", words[9].lower(), words[11])


@pytest.mark.parametrize(
    ("listener", "mechanism"),
    [("LOGIN", "PLAIN"), ("LOGIN", "SCRAM-SHA-256"), ("TLSLOGIN", "SCRAM-SHA-512")],
)
async def test_a_user_with_a_password_is_named(
    rig: KafkaRig, redis_url: str, certificates: Path, listener: str, mechanism: str
) -> None:
    for operation in ("write", "describeconfigs"):
        await rig.allow("ann", operation)
    ca_file = certificates / "ca.pem" if listener == "TLSLOGIN" else None

    rows = await examine_kafka(
        rig, 0, redis_url, **at(rig.server, listener), **ANN, kafka_sasl_mechanism=mechanism, kafka_tls_ca_file=ca_file
    )

    assert levels(rows) == ALONE
    protocol = at(rig.server, listener)["kafka_security_protocol"]
    assert rows["Kafka/connection"]["found"].endswith(f"; {protocol}, {mechanism}, as user ann")


@pytest.mark.parametrize(
    ("wrong", "found", "variable"),
    [
        ({"kafka_sasl_username": "bob"}, "refuses the credentials", "BRIDGE_KAFKA_SASL_USERNAME"),
        ({"kafka_sasl_mechanism": "SCRAM-SHA-256"}, "does not offer this way", "BRIDGE_KAFKA_SASL_MECHANISM"),
        ({"kafka_tls_ca_file": None}, "is not trusted", "BRIDGE_KAFKA_TLS_CA_FILE"),
    ],
)
async def test_a_login_that_is_refused_is_found(
    rig: KafkaRig, redis_url: str, certificates: Path, wrong: dict[str, Any], found: str, variable: str
) -> None:
    right = at(rig.server, "TLSLOGIN") | ANN | {"kafka_tls_ca_file": certificates / "ca.pem"}

    rows = await examine_kafka(rig, 1, redis_url, **right | {"kafka_sasl_mechanism": "SCRAM-SHA-512"} | wrong)

    assert levels(rows) == {"Kafka/connection": "fail"}
    assert found in rows["Kafka/connection"]["found"]
    assert variable in rows["Kafka/connection"]["remedy"]


@pytest.mark.parametrize(
    ("wrong", "variable"),
    [
        ({"kafka_tls_cert_file": None, "kafka_tls_key_file": None}, "BRIDGE_KAFKA_TLS_CERT_FILE"),
        ({"kafka_tls_key_password": f"{SECRET}3"}, "BRIDGE_KAFKA_TLS_KEY_PASSWORD"),
    ],
)
async def test_a_certificate_that_is_refused_is_found(
    rig: KafkaRig, redis_url: str, certificates: Path, wrong: dict[str, Any], variable: str
) -> None:
    right = with_certificate(rig.server, certificates, "locked.key", SECRET)
    if "kafka_tls_key_file" in wrong:
        right.pop("kafka_tls_key_password")

    rows = await examine_kafka(rig, 1, redis_url, **right | wrong)

    assert levels(rows) == {"Kafka/connection": "fail"}
    assert variable in rows["Kafka/connection"]["remedy"]


async def test_a_listener_for_another_protocol_is_found(
    rig: KafkaRig, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LIMITS", KafkaLimits(greeting=2))
    plain = at(rig.server, "LOGIN") | {"kafka_security_protocol": "PLAINTEXT"}

    rows = await examine_kafka(rig, 1, redis_url, **plain)

    assert levels(rows) == {"Kafka/connection": "fail"}
    assert "its listener is one for PLAINTEXT" in rows["Kafka/connection"]["remedy"]


async def test_a_broker_that_stops_answering_is_found(
    rig: KafkaRig, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LIMITS", KafkaLimits(request=1))
    async with rig.server.proxy() as proxy:
        asked = proxy.break_on(TO_SERVER, lambda frame: rig.topic.encode() in frame, Action.HOLD)
        rows = await examine_kafka(rig, 1, redis_url, kafka_bootstrap_servers=f"127.0.0.1:{proxy.port}")
        asked.release()

    assert levels(rows) == {"Kafka/topic": "fail"}
    assert rows["Kafka/connection"]["level"] == "pass"
    assert rows["Kafka/topic"]["found"].startswith("Kafka does not answer")
    assert "check again" in rows["Kafka/topic"]["remedy"]


# Rights


async def test_a_missing_topic_that_the_user_may_not_create_is_found_and_its_remedy_fixes_it(
    rig: KafkaRig, redis_url: str
) -> None:
    await rig.delete()
    await rig.allow("ann", "write")

    rows = await examine_kafka(rig, 1, redis_url, **as_ann(rig.server))

    assert levels(rows) == {"Kafka/topic": "fail"}
    assert "may not create it" in rows["Kafka/topic"]["found"]
    assert f"--create --topic {rig.topic} --partitions 1" in rows["Kafka/topic"]["remedy"]
    await fixed(rig, rows, "topic")
    assert levels(await examine_kafka(rig, 0, redis_url, **as_ann(rig.server))) == {}


async def test_rights_to_topics_that_depend_on_the_key_are_tried(rig: KafkaRig, redis_url: str) -> None:
    await rig.allow("ann", "write", f"{rig.topic}.share")

    rows = await examine_kafka(rig, 0, redis_url, **as_ann(rig.server, kafka_topic=f"{rig.topic}.{{prefix}}"))

    assert levels(rows) == {"Kafka/topic": "warn", "Kafka/right to write": "warn"}
    for check, operation in {"topic": "Create", "right to write": "Write"}.items():
        end = f"--operation {operation} --topic {rig.topic}. --resource-pattern-type prefixed"
        assert rows[f"Kafka/{check}"]["remedy"].endswith(end)
