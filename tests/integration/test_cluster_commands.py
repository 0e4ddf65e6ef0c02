"""The commands on a Redis Cluster: of each primary they tell what is its own, and of all of them what they have."""

import asyncio
import io
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, redirect_stdout
from functools import partial
from typing import Any, TypeVar

import pytest
import structlog

from bridge.cli.main import main
from bridge.contracts import DeadLetter
from bridge.expiration import Expiration, Identity, Via
from bridge.redis.admin.probes import Probes
from bridge.redis.ledger.letters import fields_of
from bridge.redis.protocol.slots import slot_of
from bridge.settings import Settings
from bridge.telemetry import logs
from tests.integration.doctor import SECRET, SOUND, Rows, examine, levels
from tests.integration.mends import redis_cli
from tests.integration.oracle import QUICK, Verification
from tests.support.deployments.arrivals import START, all_of, arrivals
from tests.support.deployments.scene import now_ms
from tests.support.deployments.telemetry import events
from tests.support.redis.cluster import RedisCluster
from tests.support.servers import PATIENCE, Bridge, NatsServer, RedisServer, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.measured]

T = TypeVar("T")
FLAGS = "notify-keyspace-events"


class Ground:
    """A cluster for all tests here, which leave it as it was; its event loop runs while they wait for it."""

    def __init__(self, runner: asyncio.Runner, cluster: RedisCluster) -> None:
        self.run = runner.run
        self.cluster = cluster
        self.primaries: Sequence[RedisServer] = self.run(cluster.primaries())
        self.names = [f"127.0.0.1:{node.port}" for node in self.primaries]
        self.numbers: Sequence[int] = [self.run(cluster.number(node)) for node in self.primaries]

    def ask(self, node: RedisServer, *command: str | int) -> Any:  # noqa: ANN401 - whatever it answers
        """The answer of a node to any command."""
        return self.run(self.cluster.ask(node, *command))

    def key_on(self, node: RedisServer) -> str:
        """One that lies there."""
        owner = self.run(self.cluster.owners())
        return next(key for key in (f"share:{number}" for number in range(1000)) if owner(key) is node)

    def users(self, nodes: Sequence[RedisServer], *rules: str) -> dict[str, str]:
        """The settings with which to log in as a user who has these rights on these nodes, and is unknown on others."""
        for node in self.cluster.nodes:
            self.ask(node, "ACL", "DELUSER", "limited")
        for node in nodes:
            self.ask(node, "ACL", "SETUSER", "limited", "reset", "on", f">{SECRET}", *rules)
        return {"redis_username": "limited", "redis_password": SECRET}

    def examine(self, status: int, **settings: str) -> Rows:
        """What `check` finds."""
        return examine(status, **{"redis_url": self.cluster.url, "sink": "stdout", **settings})


def told(*arguments: str, **settings: str) -> str:
    """What a command prints, which ends well, with these settings, as in `redis_url=…`."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        # It runs in this process, whose logging is pytest's.
        quiet = structlog.ReturnLoggerFactory()
        patch.setattr(logs, "configure", lambda *_: structlog.configure(logger_factory=quiet))
        for name, value in {"http_port": "0", **settings}.items():
            patch.setenv(f"BRIDGE_{name.upper()}", value)
        assert main([*arguments]) == 0, out.getvalue()
    return out.getvalue()


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    """Three primaries with a replica each, in which nothing is to be fixed."""

    async def opened(stack: AsyncExitStack) -> RedisCluster:
        return await stack.enter_async_context(RedisCluster.of(RedisServer, config=SOUND))

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            yield Ground(runner, runner.run(opened(stack)))
        finally:
            runner.run(stack.aclose())


# check


def test_of_a_cluster_in_which_nothing_is_to_be_fixed_each_check_is_one_row(ground: Ground) -> None:
    rows = ground.examine(0)

    assert levels(rows) == {}
    assert set(rows["Redis/connection"]["found"].split(", ")) == {*ground.names, "as user default"}
    assert rows["Redis/cluster"]["found"] == "3 primaries serve all 16384 slots, each has a replica"
    assert "nodes" not in rows["Redis/cluster"]
    assert set(rows["Redis/canary"]["nodes"]) == {*ground.names}
    assert rows["Redis/role"]["found"] == "primary"


def test_what_is_wrong_on_some_primaries_names_them_and_its_remedy_fixes_it_there(ground: Ground) -> None:
    first, second, third = ground.primaries
    for node in (first, second):
        ground.ask(node, "CONFIG", "SET", "hz", 500)
    ground.ask(third, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    for node in ground.primaries:
        ground.ask(node, "CONFIG", "SET", "appendfsync", "no")

    rows = ground.examine(1)

    assert levels(rows) == {"Redis/eviction": "fail", "Redis/persistence": "warn", "Redis/hz": "warn"}
    assert rows["Redis/eviction"]["found"].startswith(f"{ground.names[2]}: maxmemory-policy allkeys-lru can evict")
    assert rows["Redis/eviction"]["nodes"] == [ground.names[2]]
    assert set(rows["Redis/hz"]["nodes"]) == {*ground.names[:2]}
    assert rows["Redis/persistence"]["found"].startswith("append-only file, with appendfsync no")  # on all of them
    for row in levels(rows):
        for name in rows[row]["nodes"]:
            redis_cli(int(name.partition(":")[2]))(rows[row]["remedy"])
    assert levels(ground.examine(0)) == {}


def test_people_are_told_on_which_nodes_to_fix_it(ground: Ground) -> None:
    (first, *_) = ground.primaries

    ground.ask(first, "CONFIG", "SET", "hz", 500)
    try:
        shown = told("check", redis_url=ground.cluster.url, sink="stdout")
    finally:
        ground.ask(first, "CONFIG", "SET", "hz", 10)
    assert f"  warn  hz                 {ground.names[0]}: hz 500: costs CPU" in shown
    assert f"→ on {ground.names[0]}: CONFIG SET hz 10\n" in shown
    assert re.search(r"  pass  hz                 127.0.0.1:\d+, 127.0.0.1:\d+: hz 10: irrelevant", shown)


def test_slots_that_are_on_their_way_are_warned_of(ground: Ground) -> None:
    first, second, _ = ground.primaries
    ground.run(ground.cluster.open_slot(7, second))
    try:
        rows = ground.examine(0)
    finally:
        for node in (first, second):
            ground.ask(node, "CLUSTER", "SETSLOT", 7, "STABLE")
    assert levels(rows) == {"Redis/cluster": "warn"}
    assert "; on their way to another one: 1" in rows["Redis/cluster"]["found"]


@pytest.mark.parametrize("may_ask", ["+acl", "-acl"])
def test_a_right_that_a_user_lacks_on_one_primary_is_told_with_the_rule_that_is_enough_there(
    ground: Ground, may_ask: str
) -> None:
    (first, *others) = ground.primaries
    rules = ["~*", "&*", "+@all", may_ask]
    login = ground.users(others, *rules)
    ground.ask(first, "ACL", "SETUSER", "limited", "on", f">{SECRET}", *rules, "-zadd", "-asking")

    rows = ground.examine(1, **login)

    assert levels(rows) == {"Redis/permissions": "fail"}
    assert rows["Redis/permissions"]["found"] == (
        f"{ground.names[0]}: user limited may not run, or not on the bridge's keys and channels: zadd, asking"
    )
    redis_cli(first.port)(rows["Redis/permissions"]["remedy"])
    assert levels(ground.examine(0, **login)) == {}


def test_a_primary_that_does_not_serve_us_hides_none_of_the_others(ground: Ground) -> None:
    (first, *others) = ground.primaries
    login = ground.users(others, "~*", "&*", "+@all")

    rows = ground.examine(1, **login)

    assert levels(rows) == {"Redis/connection": "fail"}
    assert rows["Redis/connection"]["found"].startswith(f"Redis at {ground.names[0]} refuses the login")
    assert set(rows["Redis/canary"]["nodes"]) == {*ground.names[1:]}
    assert ground.examine(1, **login, redis_url=ground.cluster.url_of(first)).keys() == {
        "Redis/connection",
        "stdout/sink",
    }

    found, shown = status(ground, login)
    assert [primary["endpoint"] for primary in found["cluster"]["primaries"]] == [
        name for _, name in sorted(zip(ground.numbers[1:], ground.names[1:], strict=True))
    ]
    (unreadable,) = found["cluster"]["unreadable"]
    assert unreadable["endpoint"] == ground.names[0]
    assert "refuses the login" in unreadable["reason"]
    assert re.search(rf"{ground.names[0]} +left out: Redis at {ground.names[0]} refuses", shown)


def status(ground: Ground, login: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """What `status` tells programs and people."""
    settings = {"redis_url": ground.cluster.url, "sink": "stdout", **login}
    return json.loads(told("status", "--json", **settings)), told("status", **settings)


# run, as a user that has the least of rights; and what looks at it


def test_a_user_with_nothing_but_the_rule_shown_can_run_the_bridge_which_the_other_commands_show(
    ground: Ground, nats_server: NatsServer
) -> None:
    login = ground.users(ground.cluster.nodes, "+client|setname", "+cluster|nodes")
    given = {**login, "keys": "share:*,expiry-bridge-verify:*", "nats_url": nats_server.url, "sink": "jetstream"}
    rule = ground.examine(1, **given)["Redis/connection"]["remedy"]
    for node in ground.cluster.nodes:
        ground.ask(node, "CONFIG", "SET", FLAGS, "")
        redis_cli(node.port)(rule)
    assert ground.examine(0, **given)["Redis/permissions"]["level"] == "pass"
    for command in (["status"], ["dead", "list"], ["dead", "retry", "--all"]):
        told(*command, **given, redis_url=ground.cluster.url)
    settings = {f"BRIDGE_{name.upper()}": value for name, value in given.items()}
    ground.run(watched(ground, nats_server, {**settings, "BRIDGE_REDIS_URL": ground.cluster.url}))


async def watched(ground: Ground, nats_server: NatsServer, settings: dict[str, str]) -> None:
    cluster = ground.cluster
    owner = await cluster.owners()
    async with Bridge(settings) as bridge:
        await bridge.ready()
        keys = [f"share:{number}" for number in range(60)]
        for key in keys[:30]:
            await cluster.client.set(key, "", px=50)
        for key in keys[30:]:
            await cluster.client.set(key, "", ex=1000)
        # With or without the deadline, which a bridge on a busy machine may be too late to record.
        async with arrivals(nats_server, START) as arrived:
            await all_of(arrived, [key.encode() for key in keys[:30]])

        there = dict.fromkeys(ground.names, 0)
        for key in keys[30:]:
            there[f"127.0.0.1:{owner(key).port}"] += 1

        async def are_recorded() -> bool:
            return await sizes(ground) == there

        await wait_until(are_recorded, bridge.log, PATIENCE)
        found, shown = await asyncio.to_thread(status, ground, {})  # it has an event loop of its own
        primaries = found["cluster"]["primaries"]
        assert {one["endpoint"]: one["ledger"]["keys"] for one in primaries} == there
        assert {one["endpoint"]: one["number"] for one in primaries} == dict(
            zip(ground.names, ground.numbers, strict=True)
        )
        assert all(one["lease"]["held"] for one in primaries)
        assert len(found["leases"]) == 3
        assert found["cluster"]["unreadable"] == []
        for name, number in zip(ground.names, ground.numbers, strict=True):
            assert re.search(rf"ledger {number} on {name} +\S+, for \S+ s more; fence \d+; {there[name]} keys, ", shown)
        assert "a cluster of 3 primaries" in shown

        # A user of the verification's own, or one that may do everything: the bridge's has not the rights.
        everything = {name: value for name, value in settings.items() if "_REDIS_" not in name or name.endswith("URL")}
        with Verification(everything, *QUICK) as verification:
            verified = await verification.found(0)
        assert (verified["delivered"], verified["missed"], verified["false"]) == (200, 0, 0)
        with Bridge(settings, "verify", *QUICK) as refused:
            assert await refused.exited() == 1
            assert "+pexpireat +time +asking +cluster|nodes)" in refused.log()
        await ledgers_move(ground, bridge)
        assert events(bridge, "redis.refused") == []
        assert await bridge.stop() == 0
    for key in keys[30:]:
        await cluster.client.delete(key)


async def sizes(ground: Ground) -> dict[str, int]:
    """How many entries the ledger of each primary has."""
    return {
        name: await ground.cluster.ask(node, "ZCARD", f"{{expiry-bridge:0:{number}}}:deadlines")
        for node, name, number in zip(ground.primaries, ground.names, ground.numbers, strict=True)
    }


async def ledgers_move(ground: Ground, bridge: Bridge) -> None:
    """The slot of the first ledger's name goes to another primary, and comes back: what it holds is adopted."""
    before = await sizes(ground)
    slot = slot_of(b"{expiry-bridge:0:%d}" % ground.numbers[0])

    async def is_recorded_anew() -> bool:
        """Whether the ledger that the first primary has meanwhile knows its keys: else there is nothing to adopt."""
        ledgers = await ground.cluster.ask(ground.primaries[0], "KEYS", "{expiry-bridge:0:*}:deadlines")
        known = [int(await ground.cluster.ask(ground.primaries[0], "ZCARD", ledger)) for ledger in ledgers]
        return sum(known) == before[ground.names[0]]

    for node in (ground.primaries[1], ground.primaries[0]):
        await wait_until(is_recorded_anew, bridge.log, PATIENCE)
        adopted = len(events(bridge, "ledger.adopted"))
        await ground.cluster.move_slot(slot, node)
        await wait_until(lambda seen=adopted: len(events(bridge, "ledger.adopted")) > seen, bridge.log, PATIENCE)  # type: ignore[misc]

    async def are_back() -> bool:
        return await sizes(ground) == before

    await wait_until(are_back, bridge.log, PATIENCE)


async def test_a_node_that_the_settings_name_as_a_single_redis_is_refused_with_the_remedy(
    ground: Ground,
) -> None:
    name = ground.names[0]
    for url in (f"redis://{name}", f"redis://{name}/3"):
        with Bridge({"BRIDGE_REDIS_URL": url, "BRIDGE_SINK": "stdout"}) as bridge:
            assert await bridge.exited() == 1
            assert f"set BRIDGE_REDIS_URL to redis+cluster://{name}" in bridge.log()


# dead


def test_dead_letters_of_all_primaries_are_listed_shown_sent_again_and_dropped(
    ground: Ground, nats_server: NatsServer
) -> None:
    ids = []
    for node, number in zip(ground.primaries, ground.numbers, strict=True):
        key = ground.key_on(node).encode()
        event = Expiration(Identity("/redis", 0).of_deadline(key, 1000), key, 1000, 1002, Via.SWEEP)
        letter = DeadLetter(event, "too large")
        ground.ask(node, "XADD", f"{{expiry-bridge:0:{number}}}:dead", "*", *map(_word, fields_of(letter)))
        ids.append(event.id)

    dead = partial(told, "dead", redis_url=ground.cluster.url, nats_url=nats_server.url)
    found = json.loads(dead("list", "--json"))
    assert found["total"] == 3
    assert {one["id"] for one in found["dead_letters"]} == {*ids}
    assert "too large" in dead("show", ids[1])
    assert dead("drop", ids[0]) == "Dropped 1 dead letter; 2 left.\n"
    assert dead("retry", ids[1]) == "Sent, acked and removed: 1 dead letter.\n"
    assert dead("retry", "--all") == "Sent, acked and removed: 1 dead letter.\n"
    assert dead("list") == "There are no dead letters.\n"


def _word(word: bytes | str | int) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)


# verify


async def _set_through_a_move(ground: Ground) -> None:
    cluster, (first, second, _) = ground.cluster, ground.primaries
    settings = Settings.model_validate({"redis_url": cluster.url})
    here, there = ("{a}" + str(number) for number in range(2))
    owner = await cluster.owner(here)
    target = second if owner is first else first
    slot = slot_of(here.encode())
    probes = Probes(settings, "{a}")
    try:
        await probes.look()
        await cluster.client.set(here, "", ex=1000)
        await cluster.open_slot(slot, target)
        await probes.plant({there.encode(): now_ms() + 1_000_000})  # it is not there: it is set where the slot goes to
        assert await cluster.ask(target, "CLUSTER", "COUNTKEYSINSLOT", slot) == 1
        assert await probes.put_off({key.encode(): now_ms() + 2_000_000 for key in (here, there)}) == [True, True]
        await cluster.move_keys(slot, target)
        await cluster.close_slot(slot, target)
        assert await probes.delete([here.encode(), b"{a}none", there.encode()]) == [True, False, True]
        assert await cluster.ask(target, "CLUSTER", "COUNTKEYSINSLOT", slot) == 0
        assert abs(probes.now_ms - time.time() * 1000) < 1000
        assert 0 < probes.error_ms < 1000
    finally:
        await probes.close()
        await cluster.move_slot(slot, owner)


def test_the_keys_of_a_verification_are_set_wherever_their_slots_are_on_their_way(ground: Ground) -> None:
    ground.run(_set_through_a_move(ground))
