"""Relief: a bridge whose password or certificate is replaced, or whose login ends, goes on without a gap.

One bridge alone, and keys that live for some tenths of a second: what expires while it does not listen would be gone.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import copy

import pytest

from bridge.commands.embedded.server import free_port
from tests.support.contract import LEASE
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.short_lives import Writer, writing
from tests.support.deployments.telemetry import events
from tests.support.servers import PATIENCE, RedisServer, wait_until

pytestmark = pytest.mark.unmeasured

OLD, NEW = "of-old-1", "of-new-2"
NAMES = {"BRIDGE_REDIS_USERNAME": "ann"}


async def acl(deployment: Deployment, *rules: str) -> None:
    """Change the bridge's user."""
    await deployment.redis.execute_command("ACL", "SETUSER", "ann", *rules)  # type: ignore[no-untyped-call]


async def sessions(deployment: Deployment) -> set[str]:
    """The bridge's connections."""
    return {client["id"] for client in await deployment.redis.client_list() if client["user"] == "ann"}


async def relieved(deployment: Deployment, former: set[str]) -> None:
    """Return when none of these connections is left, and others are there."""

    async def are_others() -> bool:
        now = await sessions(deployment)
        return bool(now) and not now & former

    await wait_until(are_others, deployment.bridges[0].log, PATIENCE)


@asynccontextmanager
async def one_bridge(
    kind: type[RedisServer], redis: dict[str, str], settings: dict[str, str]
) -> AsyncIterator[tuple[Deployment, Writer]]:
    """It has closed its first gap, and keys expire. In the end, there was none but that, and it was ready all the time.

    So what has expired was stored, once each.
    """
    redis = {"user": f"ann on >{OLD} ~* &* +@all", **redis}
    async with Deployment.of(kind, redis=redis, settings=NAMES | settings) as deployment:
        bridge = await deployment.ready_bridge(direct=True)

        async def is_reconciled() -> bool:
            return await deployment.redis.hget(LEASE, "open") == "0"

        await wait_until(is_reconciled, "the first gap to be closed", PATIENCE)
        async with writing(deployment) as writer:
            yield deployment, writer
            await writer.goes_on()
        assert len(await deployment.gaps()) == 1, "that of the first start"
        assert not events(bridge, "redis.unreached", "redis.refused")
        assert {line["hot"] for line in events(bridge, "standby.promoted")[1:]} == {True}


@pytest.mark.both_kinds
async def test_a_password_that_is_replaced_opens_no_gap_whichever_side_knows_it_first(
    redis_kind: type[RedisServer], tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(OLD)
    async with one_bridge(redis_kind, {}, {"BRIDGE_REDIS_PASSWORD_FILE": str(file)}) as (deployment, writer):
        former = await sessions(deployment)
        await acl(deployment, f">{NEW}")
        file.write_text(NEW)
        await relieved(deployment, former)
        await acl(deployment, f"<{OLD}")
        await writer.goes_on()

        former = await sessions(deployment)
        file.write_text(OLD)  # too early: it is refused
        await wait_until(lambda: events(deployment.bridges[0], "relief.failed"), "a relief that failed", PATIENCE)
        await writer.goes_on()
        assert former <= await sessions(deployment), deployment.bridges[0].log()
        await acl(deployment, f">{OLD}")
        await relieved(deployment, former)


async def test_certificates_that_are_replaced_open_no_gap(certificates: Path, tmp_path: Path) -> None:
    """On Redis alone: the Valkey of the tests was built without TLS."""
    port = free_port()
    redis = {
        "tls-port": str(port),
        "tls-auth-clients": "yes",
        "tls-ca-cert-file": str(certificates / "ca.pem"),
        "tls-cert-file": str(certificates / "server.pem"),
        "tls-key-file": str(certificates / "server.key"),
    }
    own = {kind: tmp_path / f"own.{kind}" for kind in ("ca", "cert", "key")}
    for kind, source in {"ca": "ca.pem", "cert": "client.pem", "key": "client.key"}.items():
        copy(certificates / source, own[kind])
    settings = {f"BRIDGE_REDIS_TLS_{kind.upper()}_FILE": str(path) for kind, path in own.items()}
    settings |= {"BRIDGE_REDIS_URL": f"rediss://127.0.0.1:{port}/0", "BRIDGE_REDIS_PASSWORD": OLD}
    async with one_bridge(RedisServer, redis, settings) as (deployment, writer):
        former = await sessions(deployment)
        copy(certificates / "server.pem", own["cert"])  # the key does not fit yet
        await wait_until(lambda: events(deployment.bridges[0], "relief.failed"), "a relief that failed", PATIENCE)
        await writer.goes_on()
        copy(certificates / "server.key", own["key"])
        await relieved(deployment, former)
        await writer.goes_on()

        former = await sessions(deployment)
        own["ca"].write_bytes((certificates / "ca.pem").read_bytes() + (certificates / "stranger.pem").read_bytes())
        await relieved(deployment, former)
