"""Values of expired keys through takeovers, failovers and gaps, and to each broker: never wrong where called exact."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.brokers.kafka import KafkaServer
from tests.support.contract import LEASE, VALUES
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.kafka import KafkaDeployment
from tests.support.deployments.scene import Scene
from tests.support.deployments.sentinel import SentinelDeployment
from tests.support.deployments.streams import StreamsDeployment
from tests.support.deployments.telemetry import events
from tests.support.kinds import on_both_kinds
from tests.support.servers import PATIENCE, RedisServer, wait_until

pytestmark = pytest.mark.unmeasured

SETTINGS = {"BRIDGE_VALUES": "*", "BRIDGE_VALUES_LEAD": "60"}
"""A value is read as soon as its key's deadline is known."""
UNTIL_MS = 5000
"""The TTL of keys that are to outlive a takeover."""


async def held(scene: Scene, *keys: str) -> None:
    """Return when the values of these keys are held."""

    async def are_held() -> bool:
        return {*keys} <= {*await scene.redis.hkeys(VALUES)}

    await wait_until(are_held, lambda: f"the values of {keys}\n{scene.bridges[-1].log()}", PATIENCE)


async def told(scene: Scene, *keys: str) -> Mapping[str, dict[str, Any]]:
    """What was said of each key, once that is there; of copies the first."""

    async def found() -> dict[str, dict[str, Any]]:
        messages = [message.event for message in await scene.arrived() or ()][::-1]
        return {event["data"]["key"]: event["data"] for event in messages if "key" in event["data"]}

    async def are_told() -> bool:
        return {*keys} <= (await found()).keys()

    await wait_until(are_told, lambda: f"{keys}\n{scene.bridges[-1].log()}", PATIENCE)
    return await found()


def exact(data: Mapping[str, Any]) -> tuple[object, object]:
    """What was said of the value."""
    return data["value"], data.get("value_exact")


async def sends_values(scene: Scene) -> None:
    """A bridge does so, and says that they are the last ones."""
    await scene.ready_bridge(direct=True)
    await scene.redis.set("text", "v", px=1500)
    await scene.redis.rpush("list", "a", "b")
    await scene.redis.pexpire("list", 1500)
    await held(scene, "text", "list")
    found = await told(scene, "text", "list")
    assert {key: exact(data) for key, data in found.items()} == {"text": ("v", True), "list": (["a", "b"], True)}


@pytest.mark.both_kinds
async def test_values_go_to_a_redis_stream(redis_kind: type[RedisServer]) -> None:
    async with StreamsDeployment.of(redis_kind, SETTINGS) as deployment:
        await sends_values(deployment)


@pytest.mark.kafka
@pytest.mark.parametrize("deduplication", ["none", "transaction"])
async def test_values_go_to_kafka(kafka_server: KafkaServer, redis_kind: type[RedisServer], deduplication: str) -> None:
    settings = {**SETTINGS, "BRIDGE_KAFKA_DEDUPLICATION": deduplication}
    async with KafkaDeployment.of(redis_kind, kafka_server, settings=settings) as deployment:
        await sends_values(deployment)


@pytest.mark.both_kinds
async def test_a_standby_that_takes_over_sends_what_was_captured_and_captures_anew(
    redis_kind: type[RedisServer],
) -> None:
    async with Deployment.of(redis_kind, settings=SETTINGS) as deployment:
        first = await deployment.ready_bridge(direct=True)
        second = await deployment.start_bridge(direct=True)

        async def has_an_heir() -> bool:
            return bool(await deployment.redis.hexists(LEASE, "heir"))

        await wait_until(has_an_heir, "a standby that could go on", PATIENCE)
        for key in ("kept", "written"):
            await deployment.redis.set(key, "old", px=UNTIL_MS)
        await held(deployment, "kept", "written")
        first.kill()
        await deployment.redis.set("written", "new", keepttl=True)
        await wait_until(lambda: events(second, "standby.promoted"), second.log, PATIENCE)
        assert events(second, "standby.promoted")[0]["hot"]
        found = await told(deployment, "kept", "written")
        assert found["kept"]["value"] == "old"
        assert exact(found["written"]) in {("new", True), ("new", False), ("old", False)}


@pytest.mark.both_kinds
async def test_what_fills_a_gap_has_the_values_that_were_held_and_none_is_called_exact(
    redis_kind: type[RedisServer],
) -> None:
    settings = {**SETTINGS, "BRIDGE_REDIS_BACKLOG": "keep"}
    async with Deployment.of(redis_kind, redis={"lazyfree-lazy-expire": "yes"}, settings=settings) as deployment:
        first = await deployment.ready_bridge(direct=True)

        async def is_anchored() -> bool:
            place, is_open = await deployment.redis.hmget(LEASE, "place", "open")
            stream = await deployment.redis.info("replication")
            return bool(stream["repl_backlog_active"]) and is_open == "0" and stream["master_replid"] in str(place)

        await deployment.redis.set("kept", "v", px=3000)
        await held(deployment, "kept")
        await wait_until(is_anchored, first.log, PATIENCE)
        first.kill()

        async def is_gone() -> bool:
            return not await deployment.redis.exists("kept")

        await wait_until(is_gone, "the deadline", PATIENCE)
        await deployment.ready_bridge(direct=True)
        found = await told(deployment, "kept")
        assert exact(found["kept"]) == ("v", False)
        assert found["kept"]["via"] == "notification"
        assert [gap["filled"] for gap in await deployment.gaps() if "filled" in gap] == [1]


@pytest.mark.cluster
async def test_after_a_failover_values_are_those_that_the_new_primary_has() -> None:
    await on_both_kinds(through_a_failover)


async def through_a_failover(kind: type[RedisServer]) -> None:
    """One key expires while no primary is there, and one is written on the new primary, and expires after it."""
    async with SentinelDeployment.with_sentinels(kind, settings=SETTINGS) as deployment:
        first = deployment.group.nodes[0]
        bridge = await deployment.ready_bridge(direct=True)
        await deployment.redis.set("during", "v", px=1500)
        await deployment.redis.set("written", "old", px=60_000)
        await deployment.redis.set("later", "v", px=60_000)
        await held(deployment, "during", "written", "later")
        await deployment.redis.wait(1, 5000)
        first.kill()
        await deployment.group.replaced(first)
        await deployment.follow()
        await deployment.redis.set("written", "new", px=1500)
        await wait_until(lambda: len(events(bridge, "gap.closed")) > 1, bridge.log, PATIENCE)
        await deployment.redis.pexpire("later", 1500)
        found = await told(deployment, "during", "written", "later")
        assert exact(found["during"]) == ("v", False)
        assert exact(found["written"]) in {("new", True), ("new", False)} or "value_missing" in found["written"]
        assert exact(found["later"]) in {("v", True), ("v", False)} or "value_missing" in found["later"]
