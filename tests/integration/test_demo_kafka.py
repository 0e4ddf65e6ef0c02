"""`expiry-bridge demo --sink kafka`: what it says where Kafka is not at hand, and how it reads Kafka."""

from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from bridge.cli.main import main
from bridge.commands.demo.errors import DemoError
from bridge.commands.demo.kafka import KafkaConsumer
from bridge.commands.embedded import EmbeddedKafka, EmbeddedValkey, free_port, kafka
from bridge.telemetry import logs
from tests.support.brokers.kafka import KafkaServer
from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.servers import require

READ_SECONDS = 30.0
JAVA_IS_MISSING = "Kafka needs Java 17 or newer"


@pytest.fixture(autouse=True)
def with_valkey() -> None:
    require(EmbeddedValkey)


def fake_java(directory: Path, version: str) -> None:
    """A java that only says which version it is."""
    directory.mkdir()
    (directory / "java").write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    (directory / "java").chmod(0o755)


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that says why."""
    assert main(["demo", "--sink", "kafka"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    [line] = output.err.splitlines()
    return line


@pytest.mark.parametrize("version", [None, "11.0.2", "1.8.0_452"])
def test_without_a_java_that_is_new_enough_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, version: str | None
) -> None:
    if version is not None:
        fake_java(tmp_path / "bin", version)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    assert JAVA_IS_MISSING in refused(capsys)


@pytest.mark.parametrize(("home", "remedy"), [("", "make setup"), (".", "its libs/")])
def test_without_a_broker_that_java_could_run_it_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, home: str, remedy: str
) -> None:
    fake_java(tmp_path / "bin", "17.0.1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(kafka, "OF_THE_CHECKOUT", tmp_path)
    monkeypatch.setenv("KAFKA_HOME", home)

    line = refused(capsys)

    assert JAVA_IS_MISSING not in line
    assert "KAFKA_HOME" in line
    assert remedy in line


def test_a_kafka_that_does_not_start_ends_it_with_javas_own_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    require(EmbeddedKafka)
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "kafka_2.13-0.0.0.jar").touch()
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # the logging of this process is pytest's

    assert main(["demo", "--sink", "kafka"]) == 1

    error = capsys.readouterr().err
    assert "kafka's storage could not be formatted" in error
    assert "kafka.tools.StorageTool" in error


def test_the_broker_of_the_users_own_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checkout = tmp_path / "kafka_2.13-4.4.0.jar"
    theirs = tmp_path / "home" / "libs" / "kafka_2.13-3.9.1.jar"
    theirs.parent.mkdir(parents=True)
    for jar in (checkout, theirs):
        jar.touch()
    monkeypatch.setattr(kafka, "OF_THE_CHECKOUT", tmp_path)
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    assert EmbeddedKafka.jar() == checkout

    monkeypatch.setenv("KAFKA_HOME", "home")  # the working directory is that of the test

    assert EmbeddedKafka.jar() == theirs


async def test_a_broker_that_is_gone_cannot_be_read() -> None:
    consumer = KafkaConsumer(f"127.0.0.1:{free_port()}", "any", lambda _: None)

    with pytest.raises(DemoError, match="Kafka cannot be read: KafkaConnectionError"):
        async with consumer:
            pass


async def test_what_is_no_event_in_kafka_ends_the_wait_for_messages(kafka_server: KafkaServer) -> None:
    rig = KafkaRig(kafka_server)
    await rig.create()
    producer = AIOKafkaProducer(bootstrap_servers=kafka_server.address)
    await producer.start()
    try:
        await producer.send_and_wait(rig.topic, b"{")
    finally:
        await producer.stop()

    async with KafkaConsumer(kafka_server.address, rig.topic, lambda _: None) as consumer:
        with pytest.raises(DemoError, match="cannot be read: JSONDecodeError"):
            await consumer.of(["a"], READ_SECONDS)
