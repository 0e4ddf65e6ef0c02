"""No secret comes out: with every kind set, all that a bridge and its commands let anybody see is looked through."""

import asyncio
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.support.brokers.nats_jwt import Operator, nkey
from tests.support.deployments.telemetry import events
from tests.support.servers import Bridge, FreshBridge, NatsServer, RedisServer, require, wait_until

pytestmark = pytest.mark.unmeasured

REDIS, NATS, KAFKA, KEY = "of-redis-4f1c", "of-nats-9b27", "of-kafka-c03e", "hunter2"
"""Passwords; `hunter2` is that of `locked.key`."""
PERSON = "person-4711"
"""A user's key."""
REFUSALS = ("redis.refused", "sink.refused")


@dataclass(frozen=True)
class Login:
    """One way to give the bridge its secrets."""

    settings: Mapping[str, str]
    """Of what is not the same for all. {redis} and {nats} stand for the ports, {files} for a directory."""
    files: Mapping[str, str]
    """What is in that directory."""
    nats: str
    """The configuration of a NATS server that takes it."""
    secrets: tuple[str, ...]


def logins() -> dict[str, Login]:
    """Variables, URLs, and files of both kinds."""
    seed, public = nkey("U")
    operator = Operator()
    credentials = operator.credentials()
    jwt, creds_seed = (lines.splitlines()[1] for lines in credentials.split("\n\n"))
    redis, kafka = (
        {"redis_username": "ann", "redis_password": REDIS},
        {"kafka_sasl_password": KAFKA, "kafka_tls_key_password": KEY},
    )
    by_password = {"nats_user": "ann", "nats_password": NATS}
    users = f'authorization {{ users: [ {{ user: "ann", password: "{NATS}" }}, {{ nkey: {public} }} ] }}'
    token = f'authorization {{ token: "{NATS}" }}'
    in_url, in_nats_url = f"redis://ann:{REDIS}@127.0.0.1:{{redis}}/0", f"nats://{NATS}@127.0.0.1:{{nats}}"
    as_files = {f"{name}_file": f"{{files}}/{name}" for name in kafka}
    return {
        "variables": Login({**redis, **by_password, **kafka}, {}, users, (REDIS, NATS, KAFKA)),
        "URLs": Login({"redis_url": in_url, "nats_url": in_nats_url, **kafka}, {}, token, (REDIS, NATS, KAFKA)),
        "files": Login(
            {
                "redis_username": "ann",
                "redis_password_file": "{files}/redis_password",
                "nats_nkey_seed_file": "{files}/seed",
                **as_files,
            },
            {"redis_password": REDIS, "seed": seed, **kafka},
            users,
            (REDIS, seed, KAFKA),
        ),
        "a URL and credentials in files": Login(
            {"redis_url_file": "{files}/redis_url", "nats_creds_file": "{files}/creds", **as_files},
            {"redis_url": in_url, "creds": credentials, **kafka},
            operator.config,
            (REDIS, jwt, creds_seed, KAFKA),
        ),
    }


async def seen_of(login: Login, directory: Path, certificates: Path) -> dict[str, str]:
    """Where anybody might look → what is there, in good times and in bad ones."""
    with RedisServer({"user": f"ann on >{REDIS} ~* &* +@all"}) as redis, NatsServer(login.nats) as nats:
        places = {"redis": str(redis.port), "nats": str(nats.port), "files": str(directory)}
        for name, text in login.files.items():
            (directory / name).write_text(text.format(**places) if "url" in name else text)
        chosen = {
            **({} if "redis_url_file" in login.settings else {"redis_url": redis.url}),
            "nats_url": nats.url,
            "log_level": "debug",
            "shutdown_timeout": "0.5",
            # Not used with this sink, and read all the same.
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": "PLAIN",
            "kafka_sasl_username": "ann",
            "kafka_tls_cert_file": str(certificates / "client.pem"),
            "kafka_tls_key_file": str(certificates / "locked.key"),
            **{name: value.format(**places) for name, value in login.settings.items()},
        }
        settings = {f"BRIDGE_{name.upper()}": value for name, value in chosen.items()}
        async with FreshBridge(settings) as bridge, Redis(port=redis.port) as owner:
            await bridge.ready()
            await owner.set(PERSON, "", ex=600)
            await owner.set(f"{PERSON}:gone", "", px=1)
            seen = {"process list": command_line(bridge), **await told(bridge, "while well")}
            # Its own port is the running bridge's, whom `status` asks.
            for command in ("check",) if login.files else ("check", "status"):
                async with Bridge({**settings, "BRIDGE_HTTP_PORT": str(bridge.http_port)}, command) as process:
                    await process.exited()
                    seen[command] = process.log(10_000)

            await owner.execute_command("ACL", "SETUSER", "ann", "resetpass", ">another")  # type: ignore[no-untyped-call]
            await owner.execute_command("CLIENT", "KILL", "USER", "ann")  # type: ignore[no-untyped-call]
            nats.config = 'authorization { token: "another" }' if "operator" not in login.nats else Operator().config
            nats.restart()
            await wait_until(lambda: {line["event"] for line in events(bridge, *REFUSALS)} == set(REFUSALS), bridge.log)
            seen |= await told(bridge, "refused by both")
            bridge.send_signal(signal.SIGTERM)
            await bridge.exited()
            seen["log"] = bridge.log(100_000)
    return seen


def command_line(bridge: Bridge) -> str:
    """What `ps` shows of it."""
    return Path(f"/proc/{bridge.pid}/cmdline").read_text()


async def told(bridge: Bridge, when: str) -> dict[str, str]:
    """What its HTTP port shows."""
    return {
        f"{path} {when}": (await bridge.get(path))[1] for path in ("/livez", "/readyz", "/metrics", "/", "/status.json")
    }


@pytest.mark.slow
async def test_no_secret_and_no_key_is_in_logs_errors_metrics_commands_or_the_process_list(
    certificates: Path, tmp_path: Path
) -> None:
    require(RedisServer)
    require(NatsServer)

    async def nothing_in(name: str, login: Login) -> None:
        seen = await seen_of(login, tmp_path / name, certificates)
        assert "bridge.started" in seen["log"]
        assert "BRIDGE_REDIS_PASSWORD" in seen["/readyz refused by both"]
        assert "pass" in seen["check"], seen["check"]
        given_away = {
            (where, secret) for where, text in seen.items() for secret in (*login.secrets, KEY) if secret in text
        }
        assert not given_away, name
        # At debug, the log may show it; status and check need to be asked for it.
        assert not [where for where, text in seen.items() if PERSON in text and where != "log"], name

    async with asyncio.TaskGroup() as side_by_side:  # most of the time they wait
        for name, login in logins().items():
            (tmp_path / name).mkdir()
            side_by_side.create_task(nothing_in(name, login))
