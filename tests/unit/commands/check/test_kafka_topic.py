"""What `check` says of a topic in places where it would take many brokers, or a strange one, to see it."""

import pytest

from bridge.commands.check.kafka.remedies import Tools
from bridge.commands.check.kafka.topic import TOPIC_CHECKS, Topic, judge
from bridge.settings import Settings
from bridge.sinks.kafka.cluster import Found, Partition
from bridge.sinks.kafka.inspection import Examined
from bridge.sinks.kafka.names import TopicTemplate


def topic(examined: Examined, **settings: object) -> Topic:
    """What was found of the topic `t`, on three brokers."""
    made = Settings.model_validate({"kafka_topic": "t", **settings})
    names = TopicTemplate(made.kafka_topic, 0)
    return Topic(examined, made, names, Tools(made, names), brokers=3)


def kept(*in_sync: int, replicas: int = 3, minimum: str = "2") -> Topic:
    """A topic whose partitions have so many of their replicas in sync."""
    partitions = [Partition(led=True, replicas=replicas, in_sync=count) for count in in_sync]
    return topic(Examined(Found(0, partitions), 0, configs={"min.insync.replicas": minimum}))


@pytest.mark.parametrize(
    ("found", "level", "text", "remedy"),
    [
        (kept(3, 3), "pass", "3 replicas, min.insync.replicas=2", ""),
        (kept(3, 2), "warn", "1 of 2 partitions have not all of them in sync", "--under-replicated-partitions"),
        (kept(3, 1), "fail", "1 of 2 partitions have fewer in sync, and ack nothing", "--under-min-isr-partitions"),
        (kept(2, replicas=3, minimum="4"), "fail", "1 of 1 partitions have fewer in sync", "--under-min-isr"),
        (kept(3, minimum="1"), "warn", "an ack may be kept by one broker only", "min.insync.replicas=2"),
        (kept(3, minimum="4"), "warn", "Kafka before 3.7 acks nothing", "min.insync.replicas=3"),
        (kept(1, replicas=1, minimum="1"), "warn", "an ack is kept by one", "give it 3 replicas: kafka-reassign"),
    ],
)
def test_replicas_are_judged_by_how_many_must_and_how_many_do_keep_what_is_acked(
    found: Topic, level: str, text: str, remedy: str
) -> None:
    told = TOPIC_CHECKS["replication"](found)

    assert told.level == level
    assert text in told.found
    assert remedy in told.remedy


def test_what_a_broker_keeps_to_itself_is_not_judged() -> None:
    partitions = [Partition(led=True, replicas=3, in_sync=3)]
    rows = judge(topic(Examined(Found(0, partitions), 87, configs={"cleanup.policy": "compact"})))

    told = {row.check: row.finding.level for row in rows if row.finding.level != "pass"}
    assert told == {"configuration": "warn"}
    assert {row.check: row.finding.found for row in rows}["replication"] == "3 replicas"


@pytest.mark.parametrize(
    ("code", "found", "remedy"),
    [
        (17, "t cannot be used (INVALID_TOPIC, error 17)", "change BRIDGE_KAFKA_TOPIC"),
        (5, "t cannot be used (LEADER_NOT_AVAILABLE, error 5)", "run the check again"),
        (7, "t cannot be used (REQUEST_TIMED_OUT, error 7)", "run the check again"),
    ],
)
def test_a_topic_that_nobody_can_tell_of_is_the_only_finding(code: int, found: str, remedy: str) -> None:
    (row,) = judge(topic(Examined(Found(code), 3)))

    assert (row.check, row.finding.level, row.finding.found) == ("topic", "fail", found)
    assert row.finding.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (44, "change BRIDGE_KAFKA_TOPIC, or create it as the rules of this Kafka want it"),
        (41, "run the check again when Kafka is stable"),
    ],
)
def test_a_topic_that_cannot_be_created_is_found_with_what_fixes_it(code: int, remedy: str) -> None:
    row = judge(topic(Examined(Found(3), 3, creation=code)))[0]

    assert (row.check, row.finding.level, row.finding.remedy) == ("topic", "fail", remedy)


@pytest.mark.parametrize(
    ("replicas", "level", "remedy"),
    [(-1, "warn", "set BRIDGE_KAFKA_REPLICATION=3"), (1, "warn", "=3"), (3, "pass", "")],
)
def test_replicas_of_a_new_topic_are_not_left_to_chance_where_there_could_be_more(
    replicas: int, level: str, remedy: str
) -> None:
    rows = judge(topic(Examined(Found(3), 3, creation=0), kafka_replication=replicas))

    told = {row.check: row.finding for row in rows}["replication"]
    assert told.level == level
    assert remedy in told.remedy


@pytest.mark.parametrize(
    ("settings", "servers", "user"),
    [
        ({"kafka_bootstrap_servers": ["a:1", "b:2"]}, "--bootstrap-server a:1,b:2", "User:ANONYMOUS"),
        (
            {"kafka_tls_cert_file": __file__, "kafka_tls_key_file": __file__, "kafka_security_protocol": "SSL"},
            "--bootstrap-server 127.0.0.1:9092 --command-config admin.properties",
            "'User:<subject of the certificate>'",
        ),
    ],
)
def test_commands_name_the_servers_and_the_user(settings: dict[str, object], servers: str, user: str) -> None:
    command = topic(Examined(Found(0), 0), **settings).tools.allow("Write")

    assert command == f"kafka-acls.sh {servers} --add --allow-principal {user} --operation Write --topic t"


def test_a_topic_is_created_with_the_defaults_of_the_brokers_where_the_settings_ask_for_nothing() -> None:
    asked = topic(Examined(Found(3), 3), kafka_partitions=-1)

    create = "kafka-topics.sh --bootstrap-server 127.0.0.1:9092 --create --topic t --config cleanup.policy=delete"
    assert asked.tools.create() == create
