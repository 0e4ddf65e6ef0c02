"""`expiry-bridge check`, the topic's side: each fault that is planted is found, and named with what really fixes it."""

import asyncio
import shlex
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from bridge.commands.check.kafka import server
from bridge.limits import KafkaLimits
from tests.integration.doctor import Rows, examine_kafka, levels
from tests.integration.mends import kafka_tools
from tests.support.brokers.kafka import KafkaServer
from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.servers import wait_until

BOTH = {0: [1, 2], 1: [2, 1]}
"""Two partitions, each kept by both brokers."""
SOUND = {"min.insync.replicas": "2"}
"""With it, nothing is to be fixed in a topic."""


@pytest.fixture
async def rig(kafka_server: KafkaServer, shared_second_broker: KafkaServer) -> AsyncIterator[KafkaRig]:
    if not shared_second_broker.running:
        shared_second_broker.start()
    async with KafkaRig(kafka_server) as made:
        await wait_until(lambda: made.has_brokers(2))
        yield made


def remedy(rows: Rows, check: str) -> list[str]:
    """The words of the first command that fixes it; a remedy may begin with what to do before that."""
    text: str = rows[f"Kafka/{check}"]["remedy"]
    return shlex.split(text[text.index("kafka-") :].partition(";")[0])


async def topics(rig: KafkaRig) -> set[str]:
    async with rig.admin() as admin:
        return set(await admin.list_topics())


async def test_a_sound_topic_passes(rig: KafkaRig, redis_url: str) -> None:
    await rig.create(replicas=BOTH, **SOUND)

    rows = await examine_kafka(rig, 0, redis_url)

    assert levels(rows) == {}
    found = {name.removeprefix("Kafka/"): row["found"] for name, row in rows.items() if row["area"] == "Kafka"}
    assert found.pop("connection").startswith("2 brokers: 127.0.0.1:")
    assert found == {
        "topic": f"{rig.topic} exists, with 2 partitions",
        "right to write": f"user ANONYMOUS may write to {rig.topic}, as an idempotent producer",
        "leaders": "each partition has one",
        "replication": "2 replicas, min.insync.replicas=2",
        "message size": "up to 1048588 bytes",
        "cleanup policy": "delete",
        "retention": "168 h",
        "clocks": "those of 2 brokers: within 1 s of this machine's",
    }


async def test_acks_that_one_broker_keeps_alone_are_found_and_the_remedy_fixes_it(
    rig: KafkaRig, redis_url: str
) -> None:
    await rig.create(replicas=BOTH, min_insync_replicas="1")

    rows = await examine_kafka(rig, 0, redis_url)

    assert levels(rows) == {"Kafka/replication": "warn"}
    assert rows["Kafka/replication"]["found"].startswith("2 replicas, min.insync.replicas=1: an ack may be kept by one")
    await asyncio.to_thread(kafka_tools(rig), rows["Kafka/replication"]["remedy"])
    assert levels(await examine_kafka(rig, 0, redis_url)) == {}


async def test_what_is_never_deleted_is_kept_without_a_limit_of_time(rig: KafkaRig, redis_url: str) -> None:
    await rig.create(replicas=BOTH, **SOUND, retention_ms="-1")

    assert (await examine_kafka(rig, 0, redis_url))["Kafka/retention"]["found"] == "no limit of time"


async def test_a_topic_with_fewer_replicas_than_must_be_in_sync_is_found(rig: KafkaRig, redis_url: str) -> None:
    await rig.create(min_insync_replicas="2")

    rows = await examine_kafka(rig, 0, redis_url)

    assert levels(rows) == {"Kafka/replication": "warn"}
    found = "1 replica, min.insync.replicas=2: Kafka before 3.7 acks nothing, a newer one takes it for 1"
    assert rows["Kafka/replication"]["found"] == found
    assert rows["Kafka/replication"]["remedy"].startswith("add 1 broker, and then give it 3 replicas: kafka-reassign-")


@pytest.mark.parametrize(
    ("replicas", "check", "found", "others"),
    [
        ({0: [1, 2]}, "replication", "2 replicas, min.insync.replicas=2: 1 of 1 partitions have fewer in sync", {}),
        ({0: [1], 1: [2]}, "leaders", "1 of 2 partitions have none, and take nothing", {"Kafka/replication": "warn"}),
    ],
)
async def test_partitions_that_have_lost_too_many_brokers_are_found(
    rig: KafkaRig,
    shared_second_broker: KafkaServer,
    redis_url: str,
    replicas: dict[int, list[int]],
    check: str,
    found: str,
    others: dict[str, str],
) -> None:
    await rig.create(replicas=replicas, **SOUND)
    shared_second_broker.kill()
    await wait_until(lambda: rig.has_brokers(1))

    rows = await examine_kafka(rig, 1, redis_url)

    assert levels(rows) == {f"Kafka/{check}": "fail"} | others
    assert rows[f"Kafka/{check}"]["found"].startswith(found)
    which = {"replication": "--under-min-isr-partitions", "leaders": "--unavailable-partitions"}[check]
    assert remedy(rows, check)[-4:] == ["--describe", "--topic", rig.topic, which]
    if check == "replication":
        tried = (await examine_kafka(rig, 1, redis_url, "--publish"))["Kafka/test publish"]
        assert tried["found"] == f"partition 0 of {rig.topic} refuses it (NOT_ENOUGH_REPLICAS, error 19)"
        assert which in tried["remedy"]


# A topic that does not exist


async def test_a_missing_topic_is_created_by_the_bridge_or_has_to_be_made(rig: KafkaRig, redis_url: str) -> None:
    sound = {"kafka_replication": 2, "kafka_retention_hours": 5}
    provided = await examine_kafka(rig, 0, redis_url, **sound)
    wanted = await examine_kafka(rig, 1, redis_url, **sound, kafka_provision=False)

    assert levels(provided) == {}
    assert "the bridge creates it" in provided["Kafka/topic"]["found"]
    assert "may write to" in provided["Kafka/right to write"]["found"]
    assert levels(wanted) == {"Kafka/topic": "fail"}
    assert remedy(wanted, "topic") == shlex.split(
        f"kafka-topics.sh --bootstrap-server {rig.server.address} --create --topic {rig.topic} --partitions 1"
        " --replication-factor 2 --config cleanup.policy=delete --config retention.ms=18000000"
        " --config min.insync.replicas=1"
    )
    assert "BRIDGE_KAFKA_PROVISION=true" in wanted["Kafka/topic"]["remedy"]


@pytest.mark.parametrize(
    ("settings", "found", "variable"),
    [
        ({"kafka_replication": 99}, "INVALID_REPLICATION_FACTOR", "BRIDGE_KAFKA_REPLICATION"),
        ({"kafka_topic": "check.x"}, "INVALID_TOPIC", "BRIDGE_KAFKA_TOPIC"),
        ({"kafka_topic": "check.{prefix}", "kafka_replication": 99}, "INVALID_REPL", "BRIDGE_KAFKA_REPLICATION"),
    ],
)
async def test_a_missing_topic_that_cannot_be_created_is_found(
    rig: KafkaRig, redis_url: str, settings: dict[str, Any], found: str, variable: str
) -> None:
    if "check_x" not in await topics(rig):
        await rig.create("check_x")  # Kafka takes a dot and an underscore for the same

    rows = await examine_kafka(rig, 1, redis_url, **settings)

    assert levels(rows) == {"Kafka/topic": "fail"}
    assert found in rows["Kafka/topic"]["found"]
    assert variable in rows["Kafka/topic"]["remedy"]


async def test_a_topic_that_would_be_created_with_one_replica_is_found(rig: KafkaRig, redis_url: str) -> None:
    rows = await examine_kafka(rig, 0, redis_url, kafka_replication=1)

    assert levels(rows) == {"Kafka/replication": "warn"}
    assert "BRIDGE_KAFKA_REPLICATION=3" in rows["Kafka/replication"]["remedy"]


async def test_topics_that_depend_on_the_key_are_not_looked_at_and_not_named(rig: KafkaRig, redis_url: str) -> None:
    await rig.create(f"{rig.topic}.ann-s-disease", cleanup_policy="compact")
    template = f"{rig.topic}.{{prefix}}"

    provided = await examine_kafka(rig, 0, redis_url, kafka_topic=template)
    wanted = await examine_kafka(rig, 0, redis_url, kafka_topic=template, kafka_provision=False)

    assert levels(provided) == {}
    start = f"depends on the key ({template}): none was looked at"
    assert provided["Kafka/topic"]["found"] == f"{start}; the bridge creates those that are missing"
    assert f"topics whose names begin with {rig.topic}." in provided["Kafka/right to write"]["found"]
    assert levels(wanted) == {"Kafka/topic": "warn"}
    assert wanted["Kafka/topic"]["found"].startswith(start)
    assert "BRIDGE_KAFKA_PROVISION=true" in wanted["Kafka/topic"]["remedy"]
    assert "disease" not in f"{provided}{wanted}"


async def known(rig: KafkaRig) -> bool:
    """Whether the topic is, to whichever broker is asked: each of them learns of a new one by itself."""
    return all([rig.topic in await topics(rig) and (await rig.described())[0] for _ in range(4)])


@pytest.mark.parametrize("missing", ["-missing", ".{prefix}"])
async def test_it_changes_nothing(rig: KafkaRig, redis_url: str, missing: str) -> None:
    await rig.create(retention_ms="5000")
    await wait_until(lambda: known(rig))
    before = await topics(rig), await rig.described()

    await examine_kafka(rig, 0, redis_url)
    await examine_kafka(rig, 0, redis_url, kafka_topic=rig.topic + missing)

    assert (await topics(rig), await rig.described()) == before
    assert await rig.records() == []


async def test_brokers_whose_advertised_addresses_lead_nowhere_are_found(
    rig: KafkaRig, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LIMITS", KafkaLimits(start=0.5))
    rows = await examine_kafka(rig, 1, redis_url, kafka_bootstrap_servers=f"127.0.0.1:{rig.server.proxied_port}")

    assert levels(rows) == {"Kafka/connection": "fail"}
    assert rows["Kafka/connection"]["remedy"] == "check their advertised.listeners"


# A test publish


@pytest.mark.parametrize("compression", ["none", "lz4"])
async def test_a_test_publish_is_one_record_that_nobody_can_take_for_an_expiration(
    rig: KafkaRig, redis_url: str, compression: str
) -> None:
    await rig.create(replicas=BOTH, **SOUND)

    rows = await examine_kafka(rig, 0, redis_url, "--publish", kafka_compression=compression)

    (record,) = await rig.records()
    event = orjson.loads(record.value)
    assert rows["Kafka/test publish"]["level"] == "pass"
    assert rows["Kafka/test publish"]["found"] == (
        f"in partition {record.partition} of {rig.topic}, under the key _check; its type is redis.expiry.check"
    )
    assert record.key == b"_check"
    assert dict(record.headers)["ce_id"] == event["id"].encode()
    assert event["type"] == "redis.expiry.check"


@pytest.mark.parametrize("missing", ["-missing", ".{prefix}"])
async def test_no_topic_is_made_for_a_test_publish(rig: KafkaRig, redis_url: str, missing: str) -> None:
    before = await topics(rig)
    template = rig.topic + missing

    rows = await examine_kafka(rig, 0, redis_url, "--publish", kafka_topic=template, kafka_replication="2")

    assert levels(rows) == {"Kafka/test publish": "warn"}
    name = template.replace("{prefix}", "_gap")
    assert rows["Kafka/test publish"]["found"] == f"not tried: {name} does not exist"
    assert await topics(rig) == before


async def test_where_topics_depend_on_keys_a_test_publish_goes_where_gap_records_go(
    rig: KafkaRig, redis_url: str
) -> None:
    await rig.create(f"{rig.topic}._gap")

    rows = await examine_kafka(rig, 0, redis_url, "--publish", kafka_topic=f"{rig.topic}.{{prefix}}")

    assert levels(rows) == {}
    assert [record.key for record in await rig.records(f"{rig.topic}._gap")] == [b"_check"]


@pytest.mark.parametrize("limit", ["before", "after"])
async def test_narrow_limits_of_timestamps_are_found_and_the_remedy_fixes_them(
    rig: KafkaRig, redis_url: str, limit: str
) -> None:
    await rig.create(replicas=BOTH, **SOUND, **{f"message_timestamp_{limit}_max_ms": "5000"})
    asked = {"kafka_deduplication": "transaction"}

    rows = await examine_kafka(rig, 0, redis_url, **asked)

    assert levels(rows) == {"Kafka/timestamps": "warn"}
    assert rows["Kafka/timestamps"]["found"].startswith(f"message.timestamp.{limit}.max.ms=5000: claims")
    await asyncio.to_thread(kafka_tools(rig), rows["Kafka/timestamps"]["remedy"])
    assert "Kafka/timestamps" not in levels(await examine_kafka(rig, 0, redis_url, **asked))


async def test_transactions_are_tried_and_the_end_of_the_topic_is_read(rig: KafkaRig, redis_url: str) -> None:
    await rig.create(replicas=BOTH, **SOUND)
    asked = {"kafka_deduplication": "transaction"}

    rows = await examine_kafka(rig, 0, redis_url, "--publish", **asked)

    assert levels(rows) == {}
    assert rows["Kafka/transactions"]["found"] == "user ANONYMOUS may use transactional ids expiry-bridge:0:…"
    assert rows["Kafka/end of the topic"]["found"].startswith(f"user ANONYMOUS may read {rig.topic}")
    await rig.configure(message_timestamp_type="LogAppendTime")
    rows = await examine_kafka(rig, 1, redis_url, **asked)
    assert levels(rows)["Kafka/end of the topic"] == "fail"
    await asyncio.to_thread(kafka_tools(rig), rows["Kafka/end of the topic"]["remedy"])
    assert "Kafka/end of the topic" not in levels(await examine_kafka(rig, 0, redis_url, **asked))
