"""What can be wrong with Kafka."""

import asyncio

import pytest

from bridge.commands.embedded import free_port
from tests.integration.ground import Ground
from tests.integration.mends import kafka_tools
from tests.integration.planted.scenes import PUBLISH, Fault, Scene, Scenes
from tests.support.brokers.kafka_access import as_ann
from tests.support.brokers.kafka_rig import KafkaRig

ONE_BROKER = {"Kafka/replication": "warn"}
scene = Scenes(pytest.mark.kafka)


@scene(
    Fault(
        "Kafka/message size",
        "warn",
        "up to 1000 bytes: messages of longer keys become dead letters",
        "kafka-configs.sh --bootstrap-server <server> --alter --entity-type topics --entity-name <topic>"
        " --add-config max.message.bytes=1048588",
    ),
    Fault(
        "Kafka/cleanup policy",
        "warn",
        "compact,delete: compaction drops the expirations of a key but for the last",
        "kafka-configs.sh --bootstrap-server <server> --alter --entity-type topics --entity-name <topic>"
        " --add-config cleanup.policy=delete",
    ),
    Fault(
        "Kafka/retention",
        "warn",
        "90 s: a consumer that is down for longer misses messages",
        "kafka-configs.sh --bootstrap-server <server> --alter --entity-type topics --entity-name <topic>"
        " --add-config retention.ms=604800000",
    ),
    Fault(
        "Kafka/replication",
        "warn",
        "1 replica, min.insync.replicas=1: an ack is kept by one broker only, and lost with it",
        "add 2 brokers, and then give it 3 replicas: kafka-reassign-partitions.sh --bootstrap-server <server>"
        " --reassignment-json-file replicas.json --execute",
        by_hand=True,
    ),
)
def a_kafka_topic_that_loses_messages(ground: Ground) -> Scene:
    """In four ways."""
    rig, settings = ground.kafka()
    asyncio.run(rig.create(max_message_bytes="1000", cleanup_policy="compact,delete", retention_ms="90000"))
    return Scene(settings, kafka_tools(rig), {"server": rig.server.address, "topic": rig.topic})


@scene(
    Fault(
        "Kafka/topic",
        "fail",
        "<topic> does not exist",
        "kafka-topics.sh --bootstrap-server <server> --create --topic <topic> --partitions 1"
        " --config cleanup.policy=delete; or set BRIDGE_KAFKA_PROVISION=true",
    )
)
def a_kafka_topic_that_nobody_makes(ground: Ground) -> Scene:
    """Neither the bridge."""
    rig, settings = ground.kafka()
    settings["kafka_provision"] = "false"
    return Scene(settings, kafka_tools(rig), {"server": rig.server.address, "topic": rig.topic}, ONE_BROKER)


@scene(
    Fault(
        "Kafka/right to write",
        "fail",
        "the Kafka user may not write to any topic",
        "kafka-acls.sh --bootstrap-server <server> --command-config admin.properties --add"
        " --allow-principal User:ann --operation Write --topic <topic>",
    )
)
def a_kafka_user_that_may_not_write(ground: Ground) -> Scene:
    """To any topic."""
    made = of_ann(ground)
    made.also = ONE_BROKER | {"Kafka/configuration": "warn"}
    return made


@scene(
    Fault(
        "Kafka/configuration",
        "warn",
        "cannot be read: whether messages fit, how long they are kept, how many brokers keep what is acked",
        "kafka-acls.sh --bootstrap-server <server> --command-config admin.properties --add"
        " --allow-principal User:ann --operation DescribeConfigs --topic <topic>",
    )
)
def a_kafka_user_that_may_not_read_the_configuration(ground: Ground) -> Scene:
    """Of its topic."""
    return of_ann(ground, "write")


@scene(
    Fault(
        "Kafka/connection",
        "fail",
        "Kafka at <server> refuses the credentials",
        "check BRIDGE_KAFKA_SASL_USERNAME and BRIDGE_KAFKA_SASL_PASSWORD",
    )
)
def kafka_with_another_password(ground: Ground) -> Scene:
    """Than the one that the settings have."""
    made = of_ann(ground, "write", "describeconfigs")
    right = made.settings["kafka_sasl_password"]
    made.settings["kafka_sasl_password"] = "the-old-one"
    return Scene(made.settings, lambda _: made.settings.update(kafka_sasl_password=right), made.names, ONE_BROKER)


@scene(
    Fault(
        "Kafka/connection",
        "fail",
        "Kafka at <server> cannot be reached: ",
        "start Kafka there, or point BRIDGE_KAFKA_BOOTSTRAP_SERVERS at where it is",
    )
)
def nothing_where_kafka_should_be(ground: Ground) -> Scene:
    """It is elsewhere."""
    rig, settings = ground.kafka()
    address = f"127.0.0.1:{free_port()}"
    settings["kafka_bootstrap_servers"] = address
    return Scene(settings, lambda _: settings.update(kafka_bootstrap_servers=rig.server.address), {"server": address})


def of_ann(ground: Ground, *rights: str) -> Scene:
    """A topic to which `ann` has these rights."""
    rig, settings = ground.kafka("secure_kafka")
    ground.stack.callback(lambda: asyncio.run(rig.forbid("ann")))
    asyncio.run(rig.create())
    for right in rights:
        asyncio.run(rig.allow("ann", right))
    login = as_ann(rig.server)
    address = login.pop("kafka_bootstrap_servers")[0]
    names = {"server": address, "topic": rig.topic}
    return Scene(settings | login | {"kafka_bootstrap_servers": address}, kafka_tools(rig), names, ONE_BROKER)


@scene(
    Fault(
        "Kafka/message size",
        "warn",
        "up to 100 bytes",
        "kafka-configs.sh --bootstrap-server <server> --alter --entity-type topics --entity-name <topic>"
        " --add-config max.message.bytes=1048588",
    ),
    Fault(
        "Kafka/test publish",
        "fail",
        "partition 0 of <topic> refuses it (MESSAGE_SIZE_TOO_LARGE, error 10)",
        "kafka-configs.sh --bootstrap-server <server> --alter --entity-type topics --entity-name <topic>"
        " --add-config max.message.bytes=1048588",
    ),
)
def a_kafka_topic_that_the_message_does_not_fit_into(ground: Ground) -> Scene:
    """Nor would any other."""
    rig, settings = ground.kafka()
    asyncio.run(rig.create(max_message_bytes="100"))
    names: dict[str, object] = {"server": rig.server.address, "topic": rig.topic}
    return Scene(settings, kafka_tools(rig), names, ONE_BROKER, PUBLISH)


@scene(
    Fault(
        "Kafka/right to write",
        "fail",
        "user ann may not write to <topic>",
        "kafka-acls.sh --bootstrap-server <server> --command-config admin.properties --add"
        " --allow-principal User:ann --operation Write --topic <topic>",
    ),
    Fault(
        "Kafka/test publish",
        "fail",
        "partition 0 of <topic> refuses it (TOPIC_AUTHORIZATION_FAILED, error 29)",
        "kafka-acls.sh --bootstrap-server <server> --command-config admin.properties --add"
        " --allow-principal User:ann --operation Write --topic <topic>",
    ),
)
def a_kafka_user_that_may_write_elsewhere(ground: Ground) -> Scene:
    """And see this topic."""
    made = of_ann(ground, "describe", "describeconfigs")
    rig = KafkaRig(ground.request.getfixturevalue("secure_kafka"))
    asyncio.run(rig.allow("ann", "write"))
    return Scene(made.settings, made.apply, made.names, ONE_BROKER, PUBLISH)
