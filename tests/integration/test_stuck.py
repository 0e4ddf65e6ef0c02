"""A broker that takes some messages and not others: the others arrive, once, and the bridge says what is stuck."""

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StreamConfig

from tests.support.contract import DEAD, STREAM
from tests.support.deployments.jetstream import Deployment
from tests.support.deployments.telemetry import events, unready
from tests.support.limits import QUICK
from tests.support.servers import PATIENCE, RedisServer, wait_until

pytestmark = pytest.mark.unmeasured

BY_HAND = {"BRIDGE_NATS_PROVISION": "false"}
FULL: dict[str, Any] = {"max_msgs_per_subject": 5, "discard": DiscardPolicy.NEW, "discard_new_per_subject": True}
SUBJECTS = ["expired.>"]
OTHERS = [f"p{number}:1" for number in range(10)]


@pytest.mark.slow
async def test_a_full_subject_holds_up_only_itself_and_repeats_nothing(redis_kind: type[RedisServer]) -> None:
    async with Deployment.of(redis_kind, settings=BY_HAND) as deployment, deployment.jetstream() as jetstream:
        await jetstream.add_stream(StreamConfig(STREAM, subjects=SUBJECTS, duplicate_window=0.5, **FULL))
        bridge = await deployment.ready_bridge()
        await deployment.set([*(f"full:{number}" for number in range(6)), "session:1"])
        await wait_until(lambda: stored(jetstream, 6), bridge.log, PATIENCE)
        await deployment.set(["session:1", *OTHERS])
        await wait_until(lambda: stored(jetstream, 7 + len(OTHERS)), bridge.log, PATIENCE)
        await wait_until(lambda: events(bridge, "messages.stuck"), bridge.log, PATIENCE)
        reason = (await unready(bridge))["stuck"]
        assert "1 on expired.0.{prefix} for" in reason
        assert "maximum messages per subject exceeded" in reason
        assert "bridge_stuck_messages 1.0" in (await bridge.get("/metrics"))[1]
        assert await stored(jetstream, 7 + len(OTHERS))  # though the duplicate window has passed many times
        assert len(events(bridge, "messages.stuck")) == 1
        assert not await dead_letters(deployment)
        await jetstream.purge_stream(STREAM, subject="expired.0.full")
        await wait_until(lambda: stored(jetstream, 3 + len(OTHERS)), bridge.log, 2 * PATIENCE)
        await bridge.ready(PATIENCE)
        assert not await deployment.waiting()


async def test_more_that_is_refused_than_memory_has_room_for_holds_up_only_itself(
    redis_kind: type[RedisServer],
) -> None:
    small = replace(QUICK, delivery=replace(QUICK.delivery, stuck=50, batch=100, in_flight=100))
    async with Deployment.of(redis_kind, settings=BY_HAND) as deployment, deployment.jetstream() as jetstream:
        await jetstream.add_stream(StreamConfig(STREAM, subjects=SUBJECTS, duplicate_window=0.5, **FULL))
        deployment.limits = small
        bridge = await deployment.ready_bridge()
        keys = [f"full:{number}" for number in range(300)]
        await deployment.set(keys)
        await wait_until(lambda: stored(jetstream, 5), bridge.log, PATIENCE)
        await deployment.set(OTHERS)
        await wait_until(lambda: stored(jetstream, 5 + len(OTHERS)), bridge.log, PATIENCE)
        await wait_until(lambda: events(bridge, "messages.stuck"), bridge.log, PATIENCE)
        reason = (await unready(bridge))["stuck"]
        assert "295 on expired.0.{prefix} for" in reason, "what is in the outbox only counts as well"

        config = (await jetstream.stream_info(STREAM)).config
        await jetstream.update_stream(config.evolve(max_msgs_per_subject=-1, discard_new_per_subject=False))
        await wait_until(lambda: stored(jetstream, len(keys) + len(OTHERS)), bridge.log, 2 * PATIENCE)
        await wait_until(lambda: nothing_waits(deployment), bridge.log, PATIENCE)
        await bridge.ready(PATIENCE)


async def test_what_is_refused_for_too_long_while_others_are_acked_is_a_dead_letter(
    redis_kind: type[RedisServer],
) -> None:
    settings = {**BY_HAND, "BRIDGE_STUCK_SECONDS": "2"}
    async with Deployment.of(redis_kind, settings=settings) as deployment, deployment.jetstream() as jetstream:
        await jetstream.add_stream(
            StreamConfig(
                STREAM,
                subjects=SUBJECTS,
                max_msgs_per_subject=1,
                discard=DiscardPolicy.NEW,
                discard_new_per_subject=True,
            )
        )
        bridge = await deployment.ready_bridge()
        await deployment.set(["full:1", "full:2"])
        numbers = itertools.count()

        async def is_given_up() -> bool:
            await deployment.set([f"q{next(numbers)}:1"])
            return bool(await dead_letters(deployment))

        await wait_until(is_given_up, bridge.log, PATIENCE)
        (letter,) = await dead_letters(deployment)
        assert "maximum messages per subject exceeded" in letter["reason"]
        assert "for 2 s, while the broker took others" in letter["reason"]
        await wait_until(lambda: nothing_waits(deployment), bridge.log, PATIENCE)
        await bridge.ready(PATIENCE)


async def test_a_bounded_work_queue_passes_everything_on_once(redis_kind: type[RedisServer]) -> None:
    config = StreamConfig(
        STREAM,
        subjects=SUBJECTS,
        retention=RetentionPolicy.WORK_QUEUE,
        max_msgs=20,
        discard=DiscardPolicy.NEW,
        duplicate_window=0.5,
    )
    async with Deployment.of(redis_kind, settings=BY_HAND) as deployment, deployment.jetstream() as jetstream:
        await jetstream.add_stream(config)
        consumed = Counter[str]()
        consumer = await jetstream.pull_subscribe("", durable="work", stream=STREAM, config=ConsumerConfig(ack_wait=60))
        await deployment.ready_bridge()
        await deployment.set([f"job:{number}" for number in range(200)])

        async def is_all_consumed() -> bool:
            for message in await fetched(consumer):
                consumed[(message.headers or {})["Nats-Msg-Id"]] += "_gap" not in message.subject
                await message.ack()
            return sum(consumed.values()) >= 200

        await wait_until(is_all_consumed, lambda: f"{len(consumed)} consumed", 60)
        await wait_until(lambda: nothing_waits(deployment), "the end", PATIENCE)
    assert set(consumed.values()) <= {0, 1}


async def dead_letters(deployment: Deployment) -> list[dict[str, str]]:
    """The fields of all dead letters, oldest first."""
    entries: Any = await deployment.redis.xrange(DEAD)
    return [fields for _, fields in entries]


async def nothing_waits(deployment: Deployment) -> bool:
    """Whether the outbox is empty."""
    return not await deployment.waiting()


async def stored(jetstream: JetStreamContext, count: int) -> bool:
    """Whether the stream holds so many expirations, and each once."""
    consumer = await jetstream.pull_subscribe(
        "", durable="stored", stream=STREAM, config=ConsumerConfig(ack_policy=AckPolicy.NONE)
    )
    found, total = list[Msg](), (await jetstream.stream_info(STREAM)).state.messages
    while len(found) < total:
        found += await fetched(consumer)
    ids = Counter((message.headers or {})["Nats-Msg-Id"] for message in found if "_gap" not in message.subject)
    await jetstream.delete_consumer(STREAM, "stored")
    assert set(ids.values()) <= {1}
    return len(ids) == count


async def fetched(consumer: JetStreamContext.PullSubscription) -> list[Msg]:
    """What there is, at a slow pace."""
    try:
        return await consumer.fetch(10, timeout=0.1)
    except TimeoutError:
        return []
