"""Who may publish to NATS, and how they prove it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import NotConnected
from tests.support.brokers.caller import Rejected
from tests.support.brokers.nats_jwt import Operator, nkey
from tests.support.brokers.rigs import SECRET, JetStreamRig, ids, messages, refused, works
from tests.support.servers import NatsServer

USER: dict[str, Any] = {"nats_user": "ann", "nats_password": SECRET}


def users(permissions: str = "") -> str:
    return f'authorization {{ users: [ {{ user: "ann", password: "{SECRET}" {permissions} }} ] }}'


@pytest.mark.parametrize(
    "settings",
    [
        USER,
        {"nats_url": "nats://ann:hunter2@127.0.0.1:{port}"},
        {"nats_url": "nats://%61nn:hunter%32@127.0.0.1:{port}"},
    ],
)
async def test_a_user_with_a_password_may_come_in(settings: dict[str, Any]) -> None:
    async with JetStreamRig(users()) as rig:
        await works(rig.sink(**{name: value.format(port=rig.server.port) for name, value in settings.items()}))


@pytest.mark.parametrize("settings", [{"nats_token": SECRET}, {"nats_url": "nats://hunter2@127.0.0.1:{port}"}])
async def test_a_token_may_come_in(settings: dict[str, Any]) -> None:
    async with JetStreamRig(f'authorization {{ token: "{SECRET}" }}') as rig:
        await works(rig.sink(**{name: value.format(port=rig.server.port) for name, value in settings.items()}))


async def test_an_nkey_may_come_in() -> None:
    seed, public = nkey("U")
    async with JetStreamRig(f"authorization {{ users: [ {{ nkey: {public} }} ] }}") as rig:
        await works(rig.sink(nats_nkey_seed=seed))
        await refused(rig.sink(nats_nkey_seed=nkey("U")[0]), "BRIDGE_NATS_NKEY_SEED")
        await refused(rig.sink(nats_nkey_seed=f"SU{SECRET}"), "BRIDGE_NATS_NKEY_SEED")


async def test_a_credentials_file_may_come_in(tmp_path: Path) -> None:
    operator = Operator()
    file = tmp_path / "user.creds"
    file.write_text(operator.credentials())
    async with JetStreamRig(operator.config) as rig:
        await works(rig.sink(nats_creds_file=file))
        file.write_text(Operator().credentials())
        await refused(rig.sink(nats_creds_file=file), "BRIDGE_NATS_CREDS_FILE")
        file.write_text("no credentials")
        await refused(rig.sink(nats_creds_file=file), "BRIDGE_NATS_CREDS_FILE is not a credentials file")
        sink = rig.sink(nats_creds_file=file)
        file.unlink()
        await refused(sink, "BRIDGE_NATS_CREDS_FILE cannot be read")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"nats_user": "ann", "nats_password": f"{SECRET}3"},
        {"nats_token": SECRET},
        {"nats_url": "nats://ann:hunter22@127.0.0.1:{port}"},
    ],
)
async def test_wrong_credentials_are_refused_naming_the_settings(settings: dict[str, Any]) -> None:
    async with JetStreamRig(users()) as rig:
        sink = rig.sink(**{name: value.format(port=rig.server.port) for name, value in settings.items()})
        await refused(sink, "BRIDGE_NATS_USER and BRIDGE_NATS_PASSWORD")


async def test_an_unreachable_server_is_named_without_its_user(rig: JetStreamRig) -> None:
    rig.server.stop()
    address = f"127.0.0.1:{rig.server.port}"
    sink = rig.sink(nats_url=f"nats://wilma:{SECRET}@{address}")
    with pytest.raises(NotConnected, match=address) as caught:
        await sink.open()
    assert "wilma" not in str(caught.value)
    assert SECRET not in str(caught.value)


async def test_one_server_of_the_list_is_enough(rig: JetStreamRig) -> None:
    async with JetStreamRig() as other:
        other.server.stop()
        await works(rig.sink(nats_url=f"{other.server.url}, {rig.server.url}"))


async def test_a_server_that_says_nothing_is_not_connected(rig: JetStreamRig) -> None:
    rig.server.pause()
    with pytest.raises(NotConnected):
        await rig.sink().open()


async def test_a_denied_subject_is_rejected_and_its_namesake_in_other_case_is_not() -> None:
    async with JetStreamRig(users(', permissions: { publish: { deny: "expired.0.se\\"cret" } }')) as rig:
        sink = rig.sink(**USER)
        await sink.open()
        batch = messages(0, keys=[b"share:1", b'se"cret:1', b'SE"CRET:1'])
        with pytest.raises(Rejected, match="permissions violation") as caught:
            await sink.publish(batch)
        assert caught.value.reasons.keys() == {1}
        assert await rig.stored(user="ann", password=SECRET) == ids([batch[0], batch[2]])
        await sink.close()


async def test_a_user_who_may_not_receive_acks_is_refused() -> None:
    async with JetStreamRig(users(', permissions: { subscribe: { deny: "_INBOX.>" } }')) as rig:
        await refused(rig.sink(**USER), "_INBOX")


async def test_a_user_who_may_only_publish_is_taken_where_nothing_is_to_be_created() -> None:
    everything = '{ user: "root", password: "root" }'
    publisher = (
        f'{{ user: "ann", password: "{SECRET}", permissions: {{ publish: "expired.>", subscribe: "_INBOX.>" }} }}'
    )
    async with JetStreamRig(f"authorization {{ users: [ {everything}, {publisher} ] }}") as rig:
        async with rig.client(user="root", password="root") as client:
            await client.jetstream().add_stream(name="EXPIRY", subjects=["expired.>"])
        await works(rig.sink(**USER, nats_provision=False))
        assert rig.observed.warnings == [
            "stream EXPIRY is not checked: the user may not publish to $JS.API.STREAM.INFO.EXPIRY"
        ]
        await refused(rig.sink(**USER), r"\$JS.API.STREAM.CREATE.EXPIRY")


async def test_an_account_without_jetstream_is_refused() -> None:
    config = f'accounts {{ A: {{ users: [ {{ user: "ann", password: "{SECRET}" }} ] }} }}'
    async with JetStreamRig(config) as rig:
        await refused(rig.sink(**USER), "JetStream")


@pytest.fixture
async def rig() -> AsyncIterator[JetStreamRig]:
    async with JetStreamRig() as made:
        yield made


async def test_a_certificate_that_is_none_is_refused(rig: JetStreamRig, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("none")
    await refused(rig.sink(nats_tls_ca_file=file), "BRIDGE_NATS_TLS_CA_FILE")


@contextlib.asynccontextmanager
async def fake_server(info: dict[str, Any], *replies: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Greets with `info`, replies so to what it gets, and hangs up. Yields its port, and what it got."""
    received: list[bytes] = []
    serving = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        writer.write(b"INFO %b\r\n" % json.dumps({"headers": True, "max_payload": 1000, **info}).encode())
        for reply in (*replies, b""):
            received.append(await reader.read(4096))
            writer.write(reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], received
        await asyncio.gather(*filter(None, serving))


@pytest.mark.parametrize("settings", [USER, {"nats_token": SECRET}])
async def test_no_password_is_sent_in_plain_text_where_tls_was_asked_for(settings: dict[str, Any]) -> None:
    async with fake_server({"version": "2.10.0", "auth_required": True}) as (port, received):
        await refused(JetStreamRig(nats_url=f"tls://127.0.0.1:{port}").sink(**settings), "offers no TLS")
    assert received == [b""]


async def test_an_old_server_is_refused() -> None:
    async with fake_server({"version": "2.8.4"}, b"PONG\r\n") as (port, _):
        await refused(JetStreamRig(nats_url=f"nats://127.0.0.1:{port}").sink(), "version 2.8; 2.9 or newer")


async def test_a_server_that_hangs_up_in_the_greeting_is_not_connected() -> None:
    async with fake_server({"version": "2.10.0"}) as (port, _):
        with pytest.raises(NotConnected):
            await JetStreamRig(nats_url=f"nats://127.0.0.1:{port}").sink().open()


class PlainNats(NatsServer):
    """Without JetStream."""

    def command(self) -> Sequence[str]:
        """See `Process`."""
        return [str(self.program()), "--addr", "127.0.0.1", "--port", str(self.port)]


async def test_a_server_without_jetstream_is_refused_with_the_remedy(rig: JetStreamRig) -> None:
    with PlainNats() as server:
        await refused(rig.sink(nats_url=server.url), "start it with --jetstream")
