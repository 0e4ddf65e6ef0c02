"""Which streams will do, and which is created."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.js.api import RetentionPolicy, StorageType

from tests.support.brokers.rigs import JetStreamRig, refused, works


@pytest.fixture
async def rig() -> AsyncIterator[JetStreamRig]:
    async with JetStreamRig() as made:
        yield made


async def test_a_missing_stream_is_created_as_documented(rig: JetStreamRig) -> None:
    await works(rig.sink())
    async with rig.client() as client:
        config = (await client.jetstream().stream_info("EXPIRY")).config
    assert config.subjects == ["expired.*.*"]
    assert config.storage == StorageType.FILE
    assert config.duplicate_window == 600
    assert rig.observed.warnings == []


async def test_a_missing_stream_is_created_as_the_settings_say(rig: JetStreamRig) -> None:
    await refused(rig.sink(nats_replicas=3), "the NATS server is in no cluster; set BRIDGE_NATS_REPLICAS=1")
    await works(rig.sink(nats_replicas=1, nats_retention_hours=48))
    async with rig.client() as client:
        config = (await client.jetstream().stream_info("EXPIRY")).config
    assert (config.num_replicas, config.max_age) == (1, 48 * 3600)


async def test_a_missing_stream_is_refused_where_it_may_not_be_created(rig: JetStreamRig) -> None:
    await refused(rig.sink(nats_provision=False), r"create it with the subjects expired\.0\.\*, or set")


async def test_a_stream_of_another_name_with_these_subjects_is_refused(rig: JetStreamRig) -> None:
    async with rig.client() as client:
        await client.jetstream().add_stream(name="OTHER", subjects=["expired.>"])
    await refused(rig.sink(), "another stream binds some of")
    await works(rig.sink(nats_stream="OTHER"))


async def test_two_sinks_may_create_the_stream_at_once(rig: JetStreamRig) -> None:
    await asyncio.gather(*(works(rig.sink()) for _ in range(5)))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"subjects": ["other.>"]}, r"binds other\.>: add expired\.0\.\* to it"),
        ({"subjects": ["expired.1.*"]}, r"add expired\.0\.\*"),
        ({"subjects": ["expired.>"], "no_ack": True}, "acks nothing"),
    ],
)
async def test_a_stream_that_cannot_work_is_refused_with_the_remedy(
    rig: JetStreamRig, config: dict[str, Any], reason: str
) -> None:
    async with rig.client() as client:
        await client.jetstream().add_stream(name="EXPIRY", **config)
        await refused(rig.sink(), reason)
        assert (await client.jetstream().stream_info("EXPIRY")).config.subjects == config["subjects"]


@pytest.mark.parametrize(
    ("config", "warning"),
    [
        ({"subjects": ["expired.>"], "duplicate_window": 60}, "duplicate window of 60 s"),
        ({"subjects": ["expired.>"], "storage": "memory"}, "kept in memory"),
        ({"subjects": ["expired.>"], "retention": RetentionPolicy.INTEREST}, "interest retention"),
        ({"subjects": ["expired.0.share"]}, r"not all of expired\.0\.\*"),
    ],
)
async def test_a_stream_that_works_half_well_is_warned_of(
    rig: JetStreamRig, config: dict[str, Any], warning: str
) -> None:
    async with rig.client() as client:
        await client.jetstream().add_stream(name="EXPIRY", **config)
    await works(rig.sink())
    assert len(rig.observed.warnings) == 1
    assert warning.replace("\\", "") in rig.observed.warnings[0]
