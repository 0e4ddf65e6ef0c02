"""`expiry-bridge check`, the broker's side: each fault that is planted is found, and named with how to mend it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from bridge.commands.embedded import free_port
from tests.integration.doctor import SECRET, examine, levels
from tests.servers import NatsServer


class WithoutJetStream(NatsServer):
    """A NATS server that only passes messages on."""

    def command(self) -> Sequence[str]:
        """See `Process`."""
        program, option, file = super().command()
        text = Path(file).read_text()
        Path(file).write_text("".join(line for line in text.splitlines(keepends=True) if "jetstream" not in line))
        return [program, option, file]


def with_stream(server: NatsServer, **config: Any) -> None:  # noqa: ANN401 - of StreamConfig
    """Make a stream, which is good but for `config`."""
    good = StreamConfig(name="EXPIRY", subjects=["expired.>"], duplicate_window=600.0)

    async def make() -> None:
        client = await nats.connect(server.url)
        try:
            await client.jetstream().add_stream(good.evolve(**config))
        finally:
            await client.close()

    asyncio.run(make())


def test_a_broker_that_is_not_there_is_found(redis_url: str) -> None:
    port = free_port()

    rows = examine(1, redis_url=redis_url, nats_url=f"nats://127.0.0.1:{port}")

    assert levels(rows) == {"NATS/connection": "fail"}
    assert f"127.0.0.1:{port}" in rows["NATS/connection"]["found"]
    assert "BRIDGE_NATS_URL" in rows["NATS/connection"]["mend"]


def test_wrong_credentials_are_found(redis_url: str) -> None:
    with NatsServer('authorization { user: "bridge", password: "another" }') as server:
        rows = examine(1, redis_url=redis_url, nats_url=server.url, nats_user="bridge", nats_password=SECRET)

    assert levels(rows) == {"NATS/connection": "fail"}
    assert "refuses the credentials" in rows["NATS/connection"]["found"]
    assert "BRIDGE_NATS_PASSWORD" in rows["NATS/connection"]["mend"]


def test_a_server_without_jetstream_is_found(redis_url: str) -> None:
    with WithoutJetStream() as server:
        rows = examine(1, redis_url=redis_url, nats_url=server.url)

    assert levels(rows) == {"NATS/JetStream": "fail"}
    assert "--jetstream" in rows["NATS/JetStream"]["mend"]


def test_an_account_without_jetstream_is_found(redis_url: str) -> None:
    with NatsServer(f"accounts {{ A {{ users: [{{ user: bridge, password: {SECRET} }}] }} }}") as server:
        rows = examine(1, redis_url=redis_url, nats_url=server.url, nats_user="bridge", nats_password=SECRET)

    assert levels(rows) == {"NATS/JetStream": "fail"}
    assert "jetstream: enabled" in rows["NATS/JetStream"]["mend"]


@pytest.mark.parametrize(
    ("permissions", "provision", "level", "mend"),
    [
        ('publish: { deny: "$JS.API.>" }', "true", "fail", "$JS.API.STREAM.CREATE.EXPIRY"),
        ('publish: { deny: "$JS.API.>" }', "false", "warn", "$JS.API.STREAM.INFO.EXPIRY"),
        ('subscribe: { deny: "_INBOX.>" }', "true", "fail", "subscribe to _INBOX.>"),
    ],
)
def test_a_user_that_may_not_ask_about_streams_is_found(
    redis_url: str, permissions: str, provision: str, level: str, mend: str
) -> None:
    user = f"{{ user: bridge, password: {SECRET}, permissions: {{ {permissions} }} }}"
    with NatsServer(f"authorization {{ users: [{user}] }}") as server:
        rows = examine(
            int(level == "fail"),
            redis_url=redis_url,
            nats_url=server.url,
            nats_user="bridge",
            nats_password=SECRET,
            nats_provision=provision,
        )

    assert levels(rows) == {"NATS/JetStream": level}
    assert mend in rows["NATS/JetStream"]["mend"]


def test_a_missing_stream_is_created_by_the_bridge_or_has_to_be_made(redis_url: str, nats_server: NatsServer) -> None:
    provided = examine(0, redis_url=redis_url, nats_url=nats_server.url)
    wanted = examine(1, redis_url=redis_url, nats_url=nats_server.url, nats_provision="false")

    assert "the bridge creates it" in provided["NATS/stream"]["found"]
    assert levels(wanted) == {"NATS/stream": "fail"}
    assert "nats stream add EXPIRY --subjects 'expired.0.*'" in wanted["NATS/stream"]["mend"]


def test_another_stream_that_binds_the_subjects_is_found(redis_url: str, nats_server: NatsServer) -> None:
    with_stream(nats_server, name="THEIRS")

    rows = examine(1, redis_url=redis_url, nats_url=nats_server.url)

    assert levels(rows) == {"NATS/stream": "fail"}
    assert "BRIDGE_NATS_STREAM=THEIRS" in rows["NATS/stream"]["mend"]
    examine(0, redis_url=redis_url, nats_url=nats_server.url, nats_stream="THEIRS")


def test_a_stream_with_other_subjects_is_found(redis_url: str, nats_server: NatsServer) -> None:
    with_stream(nats_server, subjects=["orders.>"])

    rows = examine(1, redis_url=redis_url, nats_url=nats_server.url)

    assert levels(rows) == {"NATS/subjects": "fail"}
    assert "orders.>" in rows["NATS/subjects"]["found"]
    assert "--subjects 'orders.>,expired.0.*'" in rows["NATS/subjects"]["mend"]


@pytest.mark.parametrize(
    ("config", "check", "status"),
    [
        ({"subjects": ["expired.0.share"]}, "subjects", 0),
        ({"duplicate_window": 5.0}, "duplicate window", 0),
        ({"max_msg_size": 500}, "message size", 0),
        ({"storage": StorageType.MEMORY}, "stream", 0),
        ({"retention": RetentionPolicy.INTEREST}, "stream", 0),
        ({"no_ack": True}, "stream", 1),
    ],
)
def test_a_stream_that_loses_or_doubles_messages_is_found(
    redis_url: str, nats_server: NatsServer, config: dict[str, object], check: str, status: int
) -> None:
    with_stream(nats_server, **config)

    rows = examine(status, redis_url=redis_url, nats_url=nats_server.url)

    assert levels(rows) == {f"NATS/{check}": "fail" if status else "warn"}


def test_a_limit_that_messages_fit_into_passes(redis_url: str, nats_server: NatsServer) -> None:
    with_stream(nats_server, max_msg_size=100_000)

    rows = examine(0, redis_url=redis_url, nats_url=nats_server.url)

    assert levels(rows) == {}
    assert rows["NATS/message size"]["found"] == "up to 100000 bytes"


def test_standard_output_needs_nothing(redis_url: str) -> None:
    assert levels(examine(0, redis_url=redis_url, sink="stdout")) == {}
