"""A broker that is down, frozen, slow, changed behind the bridge's back, or will not take a message.

What it may take later waits in the outbox, however long, and memory stays bounded. What it will never take becomes a
dead letter, with its reason, and holds up nothing else.
"""

import asyncio
import re
from collections.abc import Collection
from pathlib import Path
from signal import SIGHUP
from typing import Any

import pytest
from nats.js.api import StreamConfig

from bridge.limits import Limits
from tests.support.brokers.nats_frames import ACK
from tests.support.contract import DEAD, LEDGER, OUTBOX, STREAM
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.scene import KEYS, PREFIX, keys
from tests.support.deployments.telemetry import events, unready
from tests.support.proxy import TO_CLIENT, Action
from tests.support.servers import PATIENCE, Bridge, RedisServer, wait_until

pytestmark = pytest.mark.unmeasured

READER = {"user": "reader", "password": "r"}
BY_HAND = {"BRIDGE_NATS_PROVISION": "false"}
CROWD = 20_000
GROWTH_BYTES = 150 * 1024 * 1024
"""By which a bridge may grow while the crowd waits: many times what it needs for the messages under way."""


# The broker is away.


async def test_a_broker_that_was_down_gets_everything_though_the_bridge_was_killed_meanwhile(
    redis_kind: type[RedisServer],
) -> None:
    """Kill the broker, and the bridge while it is down."""
    async with Deployment.of(redis_kind) as deployment:
        bridge = await deployment.ready_bridge()
        deployment.nats_server.kill()
        await deployment.set(keys(KEYS))
        assert "broker" in await unready(bridge)
        await deployment.claimed(KEYS)
        bridge.kill()
        await deployment.expire_lease()
        again = await deployment.set(keys(KEYS))  # the second message of a key may not overtake the first
        await deployment.past(again)
        bridge = await deployment.start_bridge()
        await deployment.claimed(2 * KEYS)
        await deployment.set(keys(KEYS, start=KEYS))
        await deployment.claimed(3 * KEYS)
        deployment.nats_server.start()
        await deployment.delivered()
        await bridge.ready(PATIENCE)


async def test_a_frozen_broker_bounds_memory_and_slows_nothing_but_delivery(redis_kind: type[RedisServer]) -> None:
    """Freeze the broker while a crowd of keys expires."""
    async with Deployment.of(redis_kind) as deployment:
        bridge = await deployment.ready_bridge()
        before = resident_bytes(bridge)
        deployment.nats_server.pause()
        await deployment.set(keys(CROWD))
        await deployment.claimed(CROWD)  # every notification is read and handled, though nothing is acked
        assert "broker" in await unready(bridge)
        assert 0 < await metric(bridge, "bridge_in_flight_messages") <= Limits().delivery.in_flight
        grown = resident_bytes(bridge) - before
        deployment.nats_server.resume()
        await deployment.delivered()
        await bridge.ready(PATIENCE)
        assert grown < GROWTH_BYTES


async def test_a_slow_broker_gets_everything(redis_kind: type[RedisServer]) -> None:
    async with Deployment.of(redis_kind) as deployment:
        bridge = await deployment.ready_bridge()
        deployment.nats_link.delay = 0.1
        await deployment.set(keys(1000))
        await deployment.delivered()
        assert bridge.running


# It is changed behind the bridge's back.


async def test_a_stream_that_is_deleted_is_created_again(redis_kind: type[RedisServer]) -> None:
    async with Deployment.of(redis_kind) as deployment:
        bridge = await deployment.ready_bridge()
        async with deployment.jetstream() as jetstream:
            await jetstream.delete_stream(STREAM)
        await deployment.set(keys(KEYS))
        await deployment.delivered()
        assert bridge.running


async def test_nothing_is_lost_until_somebody_creates_the_stream_again_where_the_bridge_may_not(
    redis_kind: type[RedisServer],
) -> None:
    stream = StreamConfig(STREAM, subjects=["expired.>"])
    async with Deployment.of(redis_kind, settings=BY_HAND) as deployment, deployment.jetstream() as jetstream:
        await jetstream.add_stream(stream)
        bridge = await deployment.ready_bridge()
        await jetstream.delete_stream(STREAM)
        await deployment.set(keys(KEYS))
        await deployment.claimed(KEYS)
        await wait_until(lambda: len(events(bridge, "messages.retried")) > 1, bridge.log, PATIENCE)
        assert "does not exist: create it" in events(bridge, "messages.retried")[-1]["reason"]
        await deployment.claimed(KEYS)
        await jetstream.add_stream(stream)
        await deployment.delivered()
        assert not await deployment.redis.xlen(DEAD)


async def test_a_password_that_is_changed_is_read_again(redis_kind: type[RedisServer], tmp_path: Path) -> None:
    def config(password: str) -> str:
        return users(f'{{user: "bridge", password: "{password}"}}')

    file = tmp_path / "password"
    file.write_text("s3cret-1")
    settings = {"BRIDGE_NATS_USER": "bridge", "BRIDGE_NATS_PASSWORD_FILE": str(file)}
    async with Deployment.of(
        redis_kind, nats_config=config("s3cret-1"), nats_login=READER, settings=settings
    ) as deployment:
        bridge = await deployment.ready_bridge()
        reconfigure(deployment, config("s3cret-2"))
        reason = (await unready(bridge))["broker"]
        await wait_until(lambda: events(bridge, "sink.refused"), bridge.log, PATIENCE)
        await deployment.set(keys(KEYS))
        await deployment.claimed(KEYS)
        file.write_text("s3cret-2")
        await deployment.delivered()
        await bridge.ready(PATIENCE)
        assert "s3cret" not in reason + bridge.log(1_000_000)


# Acks are lost.


@pytest.mark.parametrize("action", [Action.CUT, Action.DROP], ids=["with the connection", "one by one"])
async def test_what_was_stored_and_not_acked_is_sent_again_and_stored_once(
    action: Action, redis_kind: type[RedisServer]
) -> None:
    """Let acks get lost in that way."""
    async with Deployment.of(redis_kind) as deployment:
        bridge = await deployment.ready_bridge()
        lost = [deployment.nats_link.break_on(TO_CLIENT, ACK, action) for _ in range(1 if action is Action.CUT else 5)]
        await deployment.set(keys(KEYS))
        await asyncio.gather(*(ack.reached(PATIENCE) for ack in lost))
        await deployment.delivered()
        await bridge.ready(PATIENCE)
        assert await metric(bridge, "bridge_retried_messages_total") >= len(lost)
        assert await metric(bridge, "bridge_rejected_messages_total") == 0


# It will never take it.


async def test_a_message_that_fits_only_without_its_headers_is_a_dead_letter(redis_kind: type[RedisServer]) -> None:
    limit, headers = 1500, 103
    sized = [f"{PREFIX}{'x' * length}" for length in range(400, 700, 10)]
    async with Deployment.of(redis_kind, nats_config=f"max_payload: {limit}") as deployment:
        bridge = await deployment.ready_bridge()
        await deployment.set([*sized, *keys(KEYS)])

        async def is_over() -> bool:
            return not await deployment.redis.zcard(LEDGER) and not await deployment.redis.xlen(OUTBOX)

        await wait_until(is_over, bridge.log, PATIENCE)
        letters = await dead_letters(deployment)
        sizes = [int(letter["reason"].split()[0]) for letter in letters]
        assert limit < min(sizes) <= limit + headers < max(sizes)
        await are_dead(deployment, bridge, [letter["key"] for letter in letters], f"NATS server takes {limit}")
        assert not events(bridge, "sink.lost")


async def test_a_message_on_which_the_server_closes_the_connection_is_a_dead_letter(
    redis_kind: type[RedisServer],
) -> None:
    async with Deployment.of(redis_kind) as deployment:
        bridge = await deployment.ready_bridge()
        reconfigure(deployment, "max_payload: 3000")  # of which an open connection does not learn
        large = f"{PREFIX}{'x' * 2000}"
        await deployment.set([*keys(KEYS), large, *keys(KEYS, start=KEYS)])
        await are_dead(deployment, bridge, [large], "NATS server takes 3000")
        assert events(bridge, "sink.lost")


async def test_a_message_that_the_stream_has_no_place_for_is_a_dead_letter(redis_kind: type[RedisServer]) -> None:
    async with Deployment.of(redis_kind, settings=BY_HAND) as deployment:
        async with deployment.jetstream() as jetstream:
            await jetstream.add_stream(
                StreamConfig(STREAM, subjects=["expired.0.share", "expired.0._gap"], max_msg_size=1000)
            )
        bridge = await deployment.ready_bridge()
        large = f"{PREFIX}{'x' * 500}"
        await deployment.set([*keys(KEYS), large, *keys(KEYS, start=KEYS)])
        await are_dead(deployment, bridge, [large], "message size exceeds maximum allowed")


async def test_a_message_whose_subject_the_stream_does_not_bind_is_a_dead_letter(
    redis_kind: type[RedisServer],
) -> None:
    async with Deployment.of(redis_kind, settings=BY_HAND) as deployment:
        async with deployment.jetstream() as jetstream:
            await jetstream.add_stream(StreamConfig(STREAM, subjects=["expired.0.share", "expired.0._gap"]))
        bridge = await deployment.ready_bridge()
        stray = [f"stray:{key}" for key in keys(3)]
        await deployment.set([*keys(KEYS), *stray, *keys(KEYS, start=KEYS)])
        await are_dead(deployment, bridge, stray, "does not bind the message's subject")


async def test_a_message_that_the_user_may_not_publish_is_a_dead_letter(redis_kind: type[RedisServer]) -> None:
    config = users('{user: "bridge", password: "p", permissions: {publish: {deny: ["expired.0.secret"]}}}')
    settings = {"BRIDGE_NATS_USER": "bridge", "BRIDGE_NATS_PASSWORD": "p"}
    async with Deployment.of(redis_kind, nats_config=config, nats_login=READER, settings=settings) as deployment:
        bridge = await deployment.ready_bridge()
        secret = [f"secret:{key}" for key in keys(3)]
        await deployment.set([*keys(KEYS), *secret, *keys(KEYS, start=KEYS)])
        await are_dead(deployment, bridge, secret, "may not publish")


async def are_dead(deployment: Deployment, bridge: Bridge, never: Collection[str], reason: str) -> None:
    """Everything is delivered but `never`: dead letters, which are counted and told (the log's end shows no key)."""
    expected = deployment.unexpect(never)
    await deployment.delivered()

    async def are_kept() -> bool:
        return len(await dead_letters(deployment)) >= len(expected)

    await wait_until(are_kept, "dead letters, which are written when their entries are settled")
    letters = await dead_letters(deployment)
    assert {letter["id"]: (letter["key"], int(letter["deadline_ms"])) for letter in letters} == expected
    assert len(letters) == len(expected) > 0
    for letter in letters:
        assert reason in letter["reason"]
        assert letter["via"] in {"notification", "sweep"}
        assert int(letter["observed_ms"]) > int(letter["deadline_ms"])
    await bridge.ready(PATIENCE)
    for name in ("bridge_rejected_messages_total", "bridge_dead_letters"):
        assert await metric(bridge, name) == len(never), name
    told = events(bridge, "messages.rejected")
    assert 0 < sum(line["count"] for line in told) <= len(never)  # the rest is said ten seconds later
    assert all(line["level"] == "error" and reason in line["reason"] for line in told)


async def dead_letters(deployment: Deployment) -> list[dict[str, str]]:
    """The fields of all dead letters, oldest first."""
    entries: Any = await deployment.redis.xrange(DEAD)
    return [fields for _, fields in entries]


async def metric(bridge: Bridge, name: str) -> float:
    """The value of a metric without labels, or of the only shard."""
    _, text = await bridge.get("/metrics")
    found = re.search(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1])


def resident_bytes(bridge: Bridge) -> int:
    """How much memory it takes."""
    status = Path(f"/proc/{bridge.pid}/status")
    if not status.exists():
        pytest.skip("there is no /proc to look at")
    return int(status.read_text().partition("VmRSS:")[2].split()[0]) * 1024


def users(*others: str) -> str:
    """The configuration of a server that knows the reader, who may do anything, and others."""
    reader = f'{{user: "{READER["user"]}", password: "{READER["password"]}"}}'
    return f"authorization {{ users: [ {', '.join([reader, *others])} ] }}"


def reconfigure(deployment: Deployment, config: str) -> None:
    """Let the NATS server read a new configuration."""
    deployment.nats_server.config = config
    deployment.nats_server.command()  # writes the file
    deployment.nats_server.send_signal(SIGHUP)
