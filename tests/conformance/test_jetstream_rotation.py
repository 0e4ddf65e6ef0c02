"""TLS with NATS, and secrets and certificates that change while a sink is connected."""

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import NotConnected, Refused
from tests.support.brokers.nats_jwt import Operator, nkey
from tests.support.brokers.rigs import SECRET, JetStreamRig, deliver, messages, refused, works
from tests.support.servers import wait_until

TLS_FILES = {"ca": "ca.pem", "cert": "client.pem", "key": "client.key"}


def tls(certificates: Path, server: str = "server") -> str:
    files = f'cert_file: "{certificates}/{server}.pem", key_file: "{certificates}/{server}.key"'
    return f'tls {{ {files}, ca_file: "{certificates}/ca.pem", verify: true }}'


async def test_tls_with_a_client_certificate_and_all_that_can_be_wrong_with_it(certificates: Path) -> None:
    def shown(client: str, key: str | None = None) -> dict[str, Any]:
        return {
            "nats_tls_cert_file": certificates / f"{client}.pem",
            "nats_tls_key_file": certificates / f"{key or client}.key",
        }

    authority: dict[str, Any] = {"nats_tls_ca_file": certificates / "ca.pem"}
    files = "check .*BRIDGE_NATS_TLS_CERT_FILE and BRIDGE_NATS_TLS_KEY_FILE"
    async with JetStreamRig(tls(certificates)) as rig:
        right = authority | shown("client")
        await works(rig.sink(**right))
        await refused(rig.sink(), "issuer.*BRIDGE_NATS_TLS_CA_FILE")
        await refused(rig.sink(nats_tls_ca_file=certificates / "stranger.pem"), "not trusted.*BRIDGE_NATS_TLS_CA_FILE")
        elsewhere = f"tls://localhost:{rig.server.port}"
        await refused(rig.sink(**right, nats_url=elsewhere), "mismatch.*the host in BRIDGE_NATS_URL")
        for client in ({}, shown("expired"), shown("stranger")):
            # The server says why, and hangs up. On the way, the end can overtake the reason.
            with pytest.raises((Refused, NotConnected), match=files):
                await rig.sink(**authority, **client).open()
        await refused(rig.sink(**authority, **shown("client", "server")), f"KEY_VALUES_MISMATCH.*{files}")
        locked = authority | shown("client", "locked")
        await refused(rig.sink(**locked), "BRIDGE_NATS_TLS_KEY_PASSWORD")
        await works(rig.sink(**locked, nats_tls_key_password=SECRET))


async def test_certificates_that_expire_are_replaced_without_a_restart(certificates: Path, tmp_path: Path) -> None:
    for name in ("ca.pem", "client.pem", "client.key"):
        shutil.copy(certificates / name, tmp_path / name)
    files: dict[str, Any] = {f"nats_tls_{kind}_file": tmp_path / name for kind, name in TLS_FILES.items()}
    async with JetStreamRig(tls(certificates)) as rig, rig.opened(**files) as sink:
        await deliver(sink, messages(1))
        rig.server.stop()
        rig.server.config = tls(certificates, "expired")
        rig.server.start()
        await wait_until(lambda: not sink.connected)
        with pytest.raises(Refused, match="certificate has expired"):
            await sink.open()
        rig.server.config = tls(certificates, "stranger").replace("ca.pem", "stranger.pem")
        rig.server.restart()
        for name in ("ca.pem", "client.pem", "client.key"):
            shutil.copy(certificates / f"stranger{Path(name).suffix}", tmp_path / name)
        await deliver(sink, messages(1, first=1))


def reconfigure(rig: JetStreamRig, config: str) -> None:
    """As an administrator does, who edits the file and sends the server a signal."""
    rig.server.config = config
    rig.server.command()  # writes the file
    rig.server.send_signal(signal.SIGHUP)


@pytest.mark.parametrize("way", ["password", "token", "nkey_seed"])
async def test_a_secret_that_is_changed_while_the_bridge_is_connected_needs_no_restart(
    tmp_path: Path, way: str
) -> None:
    (old, old_public), (new, new_public) = (
        (nkey("U"), nkey("U")) if way == "nkey_seed" else ((SECRET,) * 2, ("new",) * 2)
    )

    def config(secret: str, public: str) -> str:
        user = {"nkey_seed": f"nkey: {public}", "password": f'user: "ann", password: "{secret}"'}
        return (
            f'authorization {{ token: "{secret}" }}'
            if way == "token"
            else f"authorization {{ users: [{{{user[way]}}}] }}"
        )

    file = tmp_path / "secret"
    file.write_text(f"{old}\n")
    login: dict[str, Any] = {f"nats_{way}_file": file} | ({"nats_user": "ann"} if way == "password" else {})
    async with JetStreamRig(config(old, old_public)) as rig, rig.opened(**login) as sink:
        await deliver(sink, messages(1))
        reconfigure(rig, config(new, new_public))
        await wait_until(lambda: not sink.connected)
        with pytest.raises(Refused, match=f"refuses the credentials: .*BRIDGE_NATS_{way.upper()}"):
            await sink.open()
        file.write_text(f"{new}\n")
        await deliver(sink, messages(1, first=1))


async def test_credentials_that_expire_are_replaced_without_a_restart(tmp_path: Path) -> None:
    operator, file = Operator(), tmp_path / "user.creds"
    async with JetStreamRig(operator.config) as rig:
        file.write_text(operator.credentials(expires=int(time.time()) + 2))
        async with rig.opened(nats_creds_file=file) as sink:
            await deliver(sink, messages(1))
            await wait_until(lambda: not sink.connected)
            with pytest.raises(Refused, match=r"refuses the credentials: .*BRIDGE_NATS_CREDS_FILE"):
                await deliver(sink, messages(1))  # in the second of their end the server may take them once more
            file.write_text(operator.credentials())
            await deliver(sink, messages(1, first=1))
