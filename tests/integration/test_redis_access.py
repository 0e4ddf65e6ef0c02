"""Who may come to Redis, and how they prove it: TLS, certificates, passwords; for commands, and for notifications.

On Redis alone: the Valkey of the tests was built without TLS.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from bridge.commands.embedded import free_port
from bridge.errors import BridgeError, NotConnected, Refused
from bridge.limits import WireLimits
from bridge.redis.admin.acl import acl_rule
from bridge.redis.protocol.inbox import Inbox
from bridge.redis.wire.conversation import conversation
from bridge.redis.wire.endpoint import CLIENT_NAME, Endpoint
from bridge.redis.wire.subscription import subscribe
from bridge.settings import Settings
from tests.support.deployments.telemetry import events
from tests.support.harness.published import written
from tests.support.harness.user import expired, known
from tests.support.harness.witness import Witness
from tests.support.redis.commands import set_for, user_of
from tests.support.servers import Bridge, RedisServer, require, wait_until

SECRET = "hunter2"
CERTIFICATES = "BRIDGE_REDIS_TLS_CERT_FILE and BRIDGE_REDIS_TLS_KEY_FILE"


class GuardedRedis(RedisServer):
    """Takes everybody on its plain port, for the tests' own use; on `tls_port` TLS, with `ann` for a user."""

    def __init__(self, certificates: Path) -> None:
        self.tls_port = free_port()
        pair = {"tls-cert-file": str(certificates / "server.pem"), "tls-key-file": str(certificates / "server.key")}
        trust = {"tls-ca-cert-file": str(certificates / "ca.pem"), "tls-auth-clients": "optional"}
        user = {"user": f"ann on >{SECRET} ~* &* +@all"}
        super().__init__({"tls-port": str(self.tls_port), **pair, **trust, **user, "notify-keyspace-events": "Egxe"})

    @property
    def tls_url(self) -> str:
        """Where clients find it."""
        return f"rediss://127.0.0.1:{self.tls_port}/0"


@pytest.fixture(scope="module")
def guarded(certificates: Path) -> Iterator[GuardedRedis]:
    require(RedisServer)
    with GuardedRedis(certificates) as server:
        yield server


@asynccontextmanager
async def configured(server: GuardedRedis, **directives: str) -> AsyncIterator[None]:
    """Other TLS settings, all at once, until the end of the block."""
    names = [name.replace("_", "-") for name in directives]
    async with user_of(server) as user:
        before = [str((await user.config_get(name))[name]) for name in names]
        await user.config_set(*_pairs(names, list(directives.values())))
        yield
        await user.config_set(*_pairs(names, before))


def _pairs(names: list[str], values: list[str]) -> list[Any]:
    return [word for pair in zip(names, values, strict=True) for word in pair]


def secure(server: GuardedRedis, certificates: Path, client: str | None = None, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 - of any field's type
    """The settings of a bridge that trusts the authority, shows the certificate of `client`, and these."""
    own = {"redis_url": server.tls_url, "redis_tls_ca_file": certificates / "ca.pem"}
    if client is not None:
        own |= {f"redis_tls_{kind}_file": certificates / f"{client}.{end}" for kind, end in CLIENT_FILES.items()}
    return own | settings


CLIENT_FILES = {"cert": "pem", "key": "key"}


async def comes_in(**settings: Any) -> None:  # noqa: ANN401 - likewise
    """Commands are answered, and a channel is confirmed. Raises as those do."""
    endpoint = Endpoint.of(Settings(**settings))
    await command(endpoint)
    await subscription(endpoint)


async def command(endpoint: Endpoint) -> None:
    client = endpoint.client()
    try:
        async with conversation(endpoint):
            await client.ping()
    finally:
        await client.aclose()


async def subscription(endpoint: Endpoint) -> None:
    session = await subscribe(endpoint, [b"any"], Inbox(endpoint.limits), lambda: None)
    session.end("it was only a try")


async def refused(
    reason: str,
    kind: type[BridgeError] = Refused,
    limits: WireLimits | None = None,
    **settings: Any,  # noqa: ANN401 - likewise
) -> None:
    """Neither a command nor a subscription gets in, for the same reason, which holds no secret."""
    for attempt in (command, subscription):
        with pytest.raises(BridgeError, match=reason) as caught:
            await attempt(Endpoint.of(Settings(**settings), limits))
        assert isinstance(caught.value, kind), caught.value
        assert SECRET not in str(caught.value)


# What is right.


async def test_tls_with_and_without_a_user_and_a_certificate(guarded: GuardedRedis, certificates: Path) -> None:
    await comes_in(**secure(guarded, certificates))
    await comes_in(**secure(guarded, certificates, redis_username="ann", redis_password=SECRET))
    await comes_in(**secure(guarded, certificates) | {"redis_url": guarded.tls_url.replace("//", f"//ann:{SECRET}@")})
    async with configured(guarded, tls_auth_clients="yes"):
        await comes_in(**secure(guarded, certificates, "client"))
        locked = {"redis_tls_key_file": certificates / "locked.key", "redis_tls_key_password": SECRET}
        await comes_in(**secure(guarded, certificates, "client") | locked)


# What is wrong: each in turn is told by the name of its setting.


async def test_a_server_that_is_not_trusted_is_refused(guarded: GuardedRedis, certificates: Path) -> None:
    await refused("self-signed .*check BRIDGE_REDIS_TLS_CA_FILE", redis_url=guarded.tls_url)
    stranger = {"redis_tls_ca_file": certificates / "stranger.pem"}
    await refused("not trusted .*check BRIDGE_REDIS_TLS_CA_FILE", **secure(guarded, certificates) | stranger)
    other_name = {"redis_url": guarded.tls_url.replace("127.0.0.1", "localhost")}
    await refused(
        "of Redis at localhost.* mismatch.* name it in BRIDGE_REDIS_URL as",
        **secure(guarded, certificates) | other_name,
    )
    expired = {f"tls_{kind}_file": str(certificates / f"expired.{end}") for kind, end in CLIENT_FILES.items()}
    async with configured(guarded, **expired):
        await refused("has expired.*: renew it", **secure(guarded, certificates))


async def test_a_clients_certificate_that_redis_does_not_take_is_told_of(
    guarded: GuardedRedis, certificates: Path
) -> None:
    async with configured(guarded, tls_auth_clients="yes"):
        for client in (None, "stranger", "expired"):
            # Redis says why, and hangs up. On the way, the end can overtake the reason.
            await refused(CERTIFICATES, BridgeError, **secure(guarded, certificates, client))


async def test_files_that_are_no_certificates_are_refused(guarded: GuardedRedis, certificates: Path) -> None:
    other_key = {"redis_tls_key_file": certificates / "server.key"}
    await refused("KEY_VALUES_MISMATCH.*" + CERTIFICATES, **secure(guarded, certificates, "client") | other_key)
    locked = {"redis_tls_key_file": certificates / "locked.key"}
    for password in ({}, {"redis_tls_key_password": f"{SECRET}3"}):
        wrong = secure(guarded, certificates, "client") | locked | password
        await refused("BRIDGE_REDIS_TLS_KEY_PASSWORD", **wrong)
    rubbish = certificates / "rubbish"
    rubbish.write_text(SECRET)
    await refused("check BRIDGE_REDIS_TLS_CA_FILE", **secure(guarded, certificates) | {"redis_tls_ca_file": rubbish})


async def test_tls_on_one_side_alone_is_told_by_the_url(guarded: GuardedRedis) -> None:
    limits = WireLimits(handshake=0.5)
    plain = guarded.tls_url.replace("rediss", "redis")
    await refused(
        "it may require TLS, or .* set BRIDGE_REDIS_URL to a rediss:// URL", NotConnected, limits, redis_url=plain
    )
    encrypted = guarded.url.replace("redis", "rediss")
    await refused("does not start TLS, .*BRIDGE_REDIS_URL", NotConnected, limits, redis_url=encrypted)


async def test_a_login_that_is_wrong_is_refused_over_tls_and_over_a_unix_socket(certificates: Path) -> None:
    server = GuardedRedis(certificates)
    server.config["unixsocket"] = str(server.directory / "redis.sock")
    remedy = "check BRIDGE_REDIS_USERNAME and BRIDGE_REDIS_PASSWORD"
    with server:
        socket = {"redis_url": f"unix://{server.config['unixsocket']}"}
        await comes_in(**socket, redis_username="ann", redis_password=SECRET)
        for way in (secure(server, certificates), socket):
            await refused(remedy, **way, redis_username="ann", redis_password=f"{SECRET}3")
            await refused(remedy, **way, redis_username="bob", redis_password=SECRET)
    await refused("redis.sock", NotConnected, None, **socket)


async def test_what_does_not_speak_as_redis_does_is_refused() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        endpoint = Endpoint.of(Settings(redis_url=SecretStr(f"redis://127.0.0.1:{port}")))
        with pytest.raises(Refused, match="does not answer like a Redis server: check BRIDGE_REDIS_URL"):
            await command(endpoint)
        with pytest.raises(NotConnected, match="not its protocol"):
            await subscription(endpoint)


# Rotation, without a restart.


async def test_a_password_that_cannot_be_read_for_a_moment_costs_no_restart(
    guarded: GuardedRedis, certificates: Path, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(SECRET)
    settings = Settings(**secure(guarded, certificates, redis_username="ann", redis_password_file=file))
    endpoint = Endpoint.of(settings)
    client = endpoint.client(connections=1)
    file.unlink()
    for _ in range(2):  # the second must not find a connection that was left without a login
        with pytest.raises(Refused, match="BRIDGE_REDIS_PASSWORD_FILE: must be a file that can be read"):
            async with conversation(endpoint):
                await client.ping()
    file.write_text(SECRET)
    async with conversation(endpoint):
        assert await client.acl_whoami() == "ann"
    await client.aclose()


def copied(certificates: Path, directory: Path, *, authority: str, client: str) -> None:
    """Put certificates where the bridge reads them, as a rotation does."""
    names = {"ca.pem": f"{authority}.pem", "client.pem": f"{client}.pem", "client.key": f"{client}.key"}
    for name, source in names.items():
        shutil.copy(certificates / source, directory / "new")
        (directory / "new").rename(directory / name)


async def cut(user: Redis) -> None:
    """Break all connections of the bridge."""
    await user.execute_command("CLIENT", "KILL", "USER", "ann")  # type: ignore[no-untyped-call]


async def test_a_bridge_of_few_rights_goes_on_while_its_password_and_all_certificates_are_changed(
    certificates: Path, tmp_path: Path
) -> None:
    require(RedisServer)
    server, password = GuardedRedis(certificates), tmp_path / "password"
    password.write_text(f"{SECRET}\n")
    copied(certificates, tmp_path, authority="ca", client="client")
    server.config["tls-auth-clients"] = "yes"
    settings = {
        "BRIDGE_SINK": "stdout",
        "BRIDGE_REDIS_URL": server.tls_url,
        "BRIDGE_REDIS_USERNAME": "ann",
        "BRIDGE_REDIS_PASSWORD_FILE": str(password),
        "BRIDGE_REDIS_NOTIFICATIONS": "verify",
        **{
            f"BRIDGE_REDIS_TLS_{kind.upper()}_FILE": str(tmp_path / f"client.{end}")
            for kind, end in CLIENT_FILES.items()
        },
        "BRIDGE_REDIS_TLS_CA_FILE": str(tmp_path / "ca.pem"),
    }
    with server:
        async with user_of(server) as user:
            least = acl_rule(Settings(redis_url=SecretStr(server.url), redis_notifications="verify"))
            rules = least.split()[3:]
            await user.execute_command("ACL", "SETUSER", "ann", "reset", "on", f">{SECRET}", *rules)  # type: ignore[no-untyped-call]
            async with Witness(user) as witness, Bridge(settings) as bridge:
                await bridge.ready()
                for connection in await user.client_list():
                    if connection["name"] == CLIENT_NAME:
                        assert connection["laddr"].endswith(f":{server.tls_port}")
                        assert connection["user"] == "ann"
                await known(user, b"before", 500)

                # The server's password first. Nobody can change both at once.
                await user.execute_command("ACL", "SETUSER", "ann", "resetpass", f">{SECRET}-2")  # type: ignore[no-untyped-call]
                await cut(user)
                await wait_until(lambda: events(bridge, "redis.refused"), bridge.log)
                status, reasons = await bridge.get("/readyz")
                assert status == 503
                assert "BRIDGE_REDIS_PASSWORD_FILE" in json.loads(reasons)["reasons"]["subscription"]
                await expired(user, b"before")
                password.write_text(f"{SECRET}-2\n")
                await bridge.ready()
                await wait_until(lambda: len(written(bridge)) == 1, bridge.log)

                # Another authority altogether, for both sides.
                other = {kind: str(certificates / f"stranger.{end}") for kind, end in CLIENT_FILES.items()}
                directives = {f"tls-{kind}-file": path for kind, path in other.items()}
                directives["tls-ca-cert-file"] = str(certificates / "stranger.pem")
                await user.config_set(*_pairs([*directives], [*directives.values()]))
                await cut(user)
                refusals = len(events(bridge, "redis.refused"))
                await wait_until(lambda: len(events(bridge, "redis.refused")) > refusals, bridge.log)
                assert "BRIDGE_REDIS_TLS_CA_FILE" in events(bridge, "redis.refused")[-1]["reason"]
                copied(certificates, tmp_path, authority="stranger", client="stranger")
                await bridge.ready()
                await set_for(user, b"after", 1)
                await expired(user, b"after")
                await wait_until(lambda: len(written(bridge)) == 2, bridge.log)

                await witness.caught_up()
                assert witness.counts == {b"before": 1, b"after": 1}
                assert SECRET not in bridge.log(100_000)
                assert await bridge.stop() == 0
