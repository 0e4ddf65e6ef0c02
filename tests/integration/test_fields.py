"""Fields of hashes in a deployment: with the least rights, by all commands; and wherever their slots are."""

import asyncio
import json
import shlex
from collections.abc import Mapping
from typing import Any

import pytest
from redis.asyncio import Redis

from bridge.cli.main import main
from bridge.commands.verify.plan import PREFIX
from bridge.redis.admin.acl import acl_rule
from bridge.redis.protocol.own_keys import Names
from bridge.settings import Settings
from bridge.telemetry import logs
from tests.integration.doctor import SECRET, examine
from tests.integration.oracle import QUICK, World
from tests.support.deployments.cluster import ClusterDeployment
from tests.support.deployments.sentinel import SentinelDeployment
from tests.support.redis.commands import redis_ms, run, user_of
from tests.support.redis.nodes import slot_of
from tests.support.servers import NatsServer, Redis8Server, RedisServer, ValkeyServer, require, wait_until

NAMES = Names("expiry-bridge", 0)
FIELDS = f"session:*,{PREFIX}:*"


@pytest.mark.parametrize(("kind", "shards"), [(Redis8Server, 1), (ValkeyServer, 3)])
async def test_the_least_rights_suffice_and_all_commands_tell_of_fields(
    kind: type[RedisServer],
    shards: int,
    nats_server: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    require(kind)
    with kind({"appendonly": "yes"}) as server:
        async with user_of(server) as admin:
            given = {"redis_url": server.url, "nats_url": nats_server.url, "fields": FIELDS, "keys": "none"}
            given["shards"] = str(shards)
            login = {"redis_username": "least", "redis_password": SECRET}
            rule = shlex.split(acl_rule(Settings.model_validate({**given, **login})))
            await run(admin, "ACL", "SETUSER", "least", "reset", "on", f">{SECRET}")
            await run(admin, *rule)
            variables = {f"BRIDGE_{name.upper()}": value for name, value in {**given, **login}.items()}
            world = World({f"BRIDGE_{name.upper()}": value for name, value in given.items()}, admin)

            await run(admin, "HSET", "session:large", *(word for number in range(501) for word in (number, "")))
            await run(admin, "HEXPIRE", "session:large", 1000, "FIELDS", 1, "7")
            await run(admin, "HSET", "session:42", "token", "", "name", "")
            await run(admin, "HEXPIRE", "session:42", 1000, "FIELDS", 1, "token")
            async with World(variables, admin).bridge() as bridge:
                await bridge.ready()
                rows = await asyncio.to_thread(examine, 0, **given, **login)
                found = await world.verified("--fields", *QUICK)
                port = {"BRIDGE_HTTP_PORT": str(bridge.http_port)}
                status = await asyncio.to_thread(told, capsys, monkeypatch, {**variables, **port}, "status")
                _, metrics = await bridge.get("/metrics")
                letters = await asyncio.to_thread(told, capsys, monkeypatch, variables, "dead", "list", "--show-keys")

    assert rows["Redis/permissions"]["level"] == rows["Redis/notifications"]["level"] == "pass"
    assert (found["delivered"], found["missed"], found["false"], found["duplicates"]) == (200, 0, 0, 0)
    assert (status["fields"]["hashes"], status["fields"]["excluded"], status["fields"]["ambiguous"]) == (1, 1, 0)
    assert 'bridge_claimed_fields_total{via="notification"} 200.0' in metrics
    (letter,) = letters["dead_letters"]
    assert letter["key"] == "session:large"
    assert letter["reason"].startswith("the hash has 501 fields, more than 500")


def told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], *command: str
) -> dict[str, Any]:
    """What a command prints as JSON."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


async def test_verify_needs_patterns_that_match(one_redis: RedisServer) -> None:
    async with user_of(one_redis) as user:
        world = World({"BRIDGE_REDIS_URL": one_redis.url}, user)
        for patterns in ({}, {"fields": "session:*"}):
            async with world.verification("--fields", **patterns) as verification:
                assert await verification.exited() == 2
                assert "BRIDGE_FIELDS: " in verification.log()


async def test_a_server_without_deadlines_of_fields_is_said_to_be_too_old(one_redis: RedisServer) -> None:
    rows = await asyncio.to_thread(examine, 1, redis_url=one_redis.url, sink="stdout", fields="*")

    assert rows["Redis/version"]["level"] == "fail"
    assert "Redis 7.4 or Valkey 9.0" in rows["Redis/version"]["remedy"]


@pytest.mark.cluster
async def test_fields_are_told_of_by_the_server_that_a_failover_made_the_primary() -> None:
    async with SentinelDeployment.with_sentinels(ValkeyServer, settings={"BRIDGE_FIELDS": "*"}) as deployment:
        bridge = await deployment.ready_bridge()
        former, deadline = deployment.redis_server, 0
        async with user_of(former) as user:
            deadline = await redis_ms(user) + 3000
            await run(user, "HSET", "h", "a", "", "b", "", "kept", "")
            await run(user, "HPEXPIREAT", "h", deadline, "FIELDS", 2, "a", "b")
            await wait_until(lambda: _is_recorded(user, 1), "the field ledger")
            await run(user, "WAIT", 1, 0)
        former.kill()
        await deployment.group.replaced(former)
        await bridge.ready()

        async def are_stored() -> bool:
            found = [one.event["data"] for one in await deployment.arrived() or [] if "field" in one.event["data"]]
            return sorted((data["field"], data["deadline_ms"]) for data in found) == [("a", deadline), ("b", deadline)]

        await wait_until(are_stored, "both fields in the stream")


async def _is_recorded(user: Redis, hashes: int) -> bool:
    return bool(await user.zcard(NAMES.fields) == hashes)


@pytest.mark.cluster
async def test_on_a_cluster_fields_are_told_of_wherever_their_slots_are() -> None:
    settings = {"BRIDGE_FIELDS": "*"}
    async with ClusterDeployment.with_cluster(ValkeyServer, replicas=0, settings=settings) as deployment:
        cluster = deployment.cluster
        await deployment.ready_bridge()
        first, second, third = await cluster.primaries()
        expected = set[tuple[str, int]]()
        slots = range((begin := await cluster.ledger_slot(first) + 1), begin + 20)
        names = [f"hash:{number}" for number in range(30)]
        names += [f"moved:{{{tag}}}" for tag in _tags(slots, 10)]
        for name in names:
            await cluster.client.hset(name, mapping={"kept": "", "field": ""})
        async with user_of(first) as user:
            deadline = await redis_ms(user) + 8000
        for name in names:
            if await cluster.client.execute_command("HPEXPIREAT", name, deadline, "FIELDS", 1, "field") == [1]:
                expected.add((name, deadline))
        await cluster.move_slots(slots, second)
        slot = await cluster.ledger_slot(third)  # with it, third has another ledger, and first finds this one
        await cluster.move_slots(range(slot, slot + 1), first)

        async def all_are_stored() -> bool:
            found = [one.event["data"] for one in await deployment.arrived() or [] if "field" in one.event["data"]]
            return {(data["key"], data["deadline_ms"]) for data in found} == expected and len(found) == len(expected)

        async def nothing_is_left() -> bool:
            return not any([await cluster.ask(node, "KEYS", "{expiry-bridge:*:field*") for node in cluster.nodes])

        await wait_until(all_are_stored, "all fields in the stream, once")
        await wait_until(nothing_is_left, "the end of all field ledgers")


def _tags(slots: range, count: int) -> list[str]:
    """Hash tags of keys in these slots."""
    tags = (str(number) for number in range(10_000_000))
    found = list[str]()
    for tag in tags:
        if slot_of(f"{{{tag}}}") in slots:
            found.append(tag)
            if len(found) == count:
                break
    return found
