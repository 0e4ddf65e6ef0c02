"""Misconfigurations, planted on real servers: `check` finds each of them, and doing what it says mends it.

The list is SCENES. A scene plants one or several at once, which must be all that `check` finds there. Then its mends
are carried out, word for word, but for those that take another machine; after that `check` must find no more than that.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamSource
from redis import Redis

from bridge.commands.embedded import free_port
from tests.conformance.kafka_rig import KafkaRig
from tests.integration.doctor import SECRET, Rows, examine, levels
from tests.integration.ground import Ground, Settings, WithoutJetStream, in_sync
from tests.integration.mends import Apply, kafka_tools, nats_cli, redis_cli
from tests.kafka_access import as_ann
from tests.servers import wait_until

PERMISSIONS = (
    "give the user, in the server's configuration, permissions: { publish: { allow: "
    '["expired.0.*", "$JS.API.STREAM.INFO.EXPIRY", "$JS.API.STREAM.CREATE.EXPIRY", "$JS.API.INFO",'
    ' "$SYS.REQ.USER.INFO"] }, subscribe: { allow: ["_INBOX.>"] } }'
)
ADD = "nats stream add EXPIRY --subjects='expired.0.*' --storage=file --dupe-window=10m"
PUBLISH = ("--publish",)
ONE_BROKER = {"Kafka/replication": "warn"}
IN_ITS_FILE = ", and the same in its configuration file"


@dataclass(frozen=True)
class Fault:
    """A misconfiguration: where `check` shows it, how bad it is, how what was found begins, and the whole mend."""

    row: str
    level: str
    found: str
    mend: str
    """In all texts `<port>` and its like stand for what the scene says, `<number>` for any number."""
    by_hand: bool = False
    """Whether its mend takes another machine, and is not carried out."""


@dataclass
class Scene:
    """Servers on which something is wrong."""

    settings: Settings
    apply: Apply
    names: dict[str, object] = field(default_factory=dict)
    also: dict[str, str] = field(default_factory=dict)
    """What is found there, before or after, and is no matter of this scene: row → level."""
    flags: tuple[str, ...] = ()


SCENES: list[Any] = []


def scene(*faults: Fault) -> Callable[[Callable[[Ground], Scene]], Callable[[Ground], Scene]]:
    """Enter a scene, in which these are all the faults, into the list."""

    def enter(build: Callable[[Ground], Scene]) -> Callable[[Ground], Scene]:
        SCENES.append(pytest.param(build, faults, id=build.__name__.replace("_", "-")))
        return build

    return enter


def changed(settings: Settings) -> Apply:
    """Mends that are a change of settings."""
    return lambda mend: settings.update(
        (name.lower(), value) for name, value in re.findall(r"BRIDGE_([A-Z_]+)=([^\s,;]+)", mend)
    )


def by_hand(mend: str) -> None:
    """No mend of the scene is carried out."""
    raise AssertionError(mend)


# Redis


@scene(
    Fault(
        "Redis/notifications",
        "fail",
        "notify-keyspace-events is 'xK' and lacks Ege; the bridge may not add it (BRIDGE_REDIS_NOTIFICATIONS=verify)",
        f"CONFIG SET notify-keyspace-events xKEge{IN_ITS_FILE}",
    ),
    Fault(
        "Redis/eviction",
        "fail",
        "maxmemory-policy allkeys-lru can evict the deadline ledger and the outbox",
        f"CONFIG SET maxmemory-policy noeviction (or one of volatile-*){IN_ITS_FILE}",
    ),
    Fault(
        "Redis/persistence",
        "warn",
        "none: a restart of Redis loses the ledger and the outbox, and all keys",
        f"CONFIG SET appendonly yes{IN_ITS_FILE}",
    ),
    Fault(
        "Redis/subscriber buffer",
        "warn",
        "client-output-buffer-limit pubsub: 256 KiB, or no limit for 0 s: at a burst",
        f'CONFIG SET client-output-buffer-limit "pubsub 32mb 8mb 60"{IN_ITS_FILE}',
    ),
    Fault("Redis/hz", "warn", "hz 500: costs CPU", "CONFIG SET hz 10"),
    Fault(
        "Redis/permissions",
        "fail",
        "user limited may not run, or not on the bridge's keys and channels: evalsha, zadd",
        "ACL SETUSER limited (~{expiry-bridge:* %R~* &__keyevent@0__:* &__keyevent@*__:expired +client|setname"
        " +config|get +del +evalsha +exists +get +hdel +hget +hgetall +hincrby +hmget +hset +info +pexpiretime +ping"
        " +scan +script|load +set +subscribe +time +xadd +xdel +xinfo|stream +xlen +xrange +xrevrange +zadd +zcard"
        " +zmscore +zrange +zrem +zscan)",
    ),
)
def redis_as_it_came_and_worse(ground: Ground) -> Scene:
    """And a user that lacks rights."""
    wrong = {
        "notify-keyspace-events": "Kx",
        "maxmemory-policy": "allkeys-lru",
        "appendonly": "no",
        "client-output-buffer-limit": "pubsub 256kb 0 0",
        "hz": "500",
    }
    server = ground.redis(wrong)
    with Redis(port=server.port) as admin:
        rules = ["on", f">{SECRET}", "~*", "&*", "+@all", "-zadd", "-evalsha"]
        admin.execute_command("ACL", "SETUSER", "limited", *rules)
    login = {"redis_username": "limited", "redis_password": SECRET, "redis_notifications": "verify"}
    return Scene({"redis_url": server.url, "sink": "stdout", **login}, redis_cli(server.port))


@scene(
    Fault(
        "Redis/eviction",
        "warn",
        "the memory is full (",
        f"CONFIG SET maxmemory <number> (or more){IN_ITS_FILE}",
    ),
    Fault(
        "Redis/persistence",
        "warn",
        "append-only file, with appendfsync no: a crash of the machine loses",
        f"CONFIG SET appendfsync everysec{IN_ITS_FILE}",
    ),
)
def redis_full_and_careless(ground: Ground) -> Scene:
    """No more memory, and nobody sees to it that what is written reaches the disk."""
    server = ground.redis({"maxmemory": "1mb", "maxmemory-policy": "noeviction", "appendfsync": "no"})
    with Redis(port=server.port) as admin:
        admin.config_set("maxmemory", 100_000)
    return Scene({"redis_url": server.url, "sink": "stdout"}, redis_cli(server.port))


@scene(
    Fault(
        "Redis/persistence",
        "fail",
        "the last attempt to write a snapshot failed: Redis may refuse all writes (MISCONF)",
        "make room on its disk, and see that it may write to its directory (CONFIG GET dir), then BGSAVE",
    )
)
def redis_that_cannot_write_its_snapshots(ground: Ground) -> Scene:
    """A directory is in the way."""
    server = ground.redis({"appendonly": "no", "save": "900 1"})
    in_the_way = server.directory / "dump.rdb"
    in_the_way.mkdir()
    save(server.port, "err")

    def apply(mend: str) -> None:
        assert "BGSAVE" in mend
        in_the_way.rmdir()
        save(server.port, "ok")
        with Redis(port=server.port) as admin:
            admin.config_set("appendonly", "yes")  # or it would be warned of, now that it works

    return Scene({"redis_url": server.url, "sink": "stdout"}, apply)


def save(port: int, status: str) -> None:
    """Have Redis write a snapshot, which ends with this status."""
    with Redis(port=port) as admin:
        admin.bgsave()
        asyncio.run(wait_until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == status))


@scene(
    Fault(
        "Redis/role",
        "fail",
        "a replica: only a primary expires keys by itself, and takes writes",
        "point BRIDGE_REDIS_URL at the primary: this replica follows 127.0.0.1:<port>",
    )
)
def redis_that_is_a_replica(ground: Ground) -> Scene:
    """Of another one."""
    primary = ground.redis()
    replica = ground.redis({"replicaof": f"127.0.0.1 {primary.port}"})
    settings = {"redis_url": replica.url, "sink": "stdout"}
    return Scene(
        settings, lambda mend: settings.update(redis_url=f"redis://{mend.split()[-1]}"), {"port": primary.port}
    )


@scene(
    Fault(
        "Redis/role",
        "fail",
        "a node of a cluster: it has only some of the keys, and may not have the bridge's own",
        "point BRIDGE_REDIS_URL at a Redis that is no cluster (cluster-enabled no)",
        by_hand=True,
    )
)
def redis_that_is_a_node_of_a_cluster(ground: Ground) -> Scene:
    """Of only one."""
    return Scene({"redis_url": ground.redis({"cluster-enabled": "yes"}).url, "sink": "stdout"}, by_hand)


@scene(
    Fault(
        "Redis/connection",
        "fail",
        "Redis at 127.0.0.1:<port> refuses the login (",
        "check BRIDGE_REDIS_USERNAME and BRIDGE_REDIS_PASSWORD (or BRIDGE_REDIS_PASSWORD_FILE)",
    )
)
def redis_with_another_password(ground: Ground) -> Scene:
    """Than the one that the settings have."""
    server = ground.redis({"requirepass": "the-new-one"})
    settings = {"redis_url": server.url, "redis_password": SECRET, "sink": "stdout"}
    return Scene(settings, lambda _: settings.update(redis_password="the-new-one"), {"port": server.port})


@scene(
    Fault(
        "Redis/connection",
        "fail",
        "Redis at 127.0.0.1:<port>: ",
        "start Redis there, or point BRIDGE_REDIS_URL at where it is",
    ),
    Fault(
        "NATS/connection",
        "fail",
        "NATS at 127.0.0.1:<port> cannot be reached: ",
        "start NATS there, or point BRIDGE_NATS_URL at where it is",
    ),
)
def nothing_where_redis_and_nats_should_be(ground: Ground) -> Scene:
    """They are elsewhere."""
    port = free_port()
    settings = {"redis_url": f"redis://127.0.0.1:{port}", "nats_url": f"nats://127.0.0.1:{port}"}
    right = ground.nats()

    def apply(mend: str) -> None:
        name = "redis_url" if "REDIS" in mend else "nats_url"
        settings[name] = right[name]

    return Scene(settings, apply, {"port": port})


# NATS


@scene(
    Fault(
        "NATS/stream",
        "warn",
        "EXPIRY has interest retention: what no consumer waits for is dropped",
        "nats stream edit EXPIRY --retention=limits",
    ),
    Fault(
        "NATS/subjects",
        "warn",
        "EXPIRY binds expired.0.share, orders.>, not all of expired.0.*: other messages become dead letters",
        "nats stream edit EXPIRY --subjects='orders.>,expired.0.*'",
    ),
    Fault(
        "NATS/duplicate window",
        "warn",
        "5 s: what is sent again later than that is stored twice",
        "nats stream edit EXPIRY --max-age=7d --dupe-window=10m",
    ),
    Fault(
        "NATS/message size",
        "warn",
        "up to 500 bytes: messages of longer keys become dead letters",
        "nats stream edit EXPIRY --max-msg-size=4096 (or more; -1 for no limit)",
    ),
    Fault(
        "NATS/limits",
        "warn",
        "60 s: a consumer that is down for longer misses messages",
        "nats stream edit EXPIRY --max-age=7d",
    ),
)
def a_stream_that_loses_and_doubles_messages(ground: Ground) -> Scene:
    """In five ways."""
    account = ground.account()
    account.stream(
        retention=RetentionPolicy.INTEREST,
        subjects=["expired.0.share", "orders.>"],
        duplicate_window=5.0,
        max_msg_size=500,
        max_age=60.0,
    )
    return Scene(account.settings, account.apply)


@scene(
    Fault(
        "NATS/stream",
        "warn",
        "EXPIRY is kept in memory: it is lost when its servers stop",
        f"when its consumers have read it, make it anew: nats stream rm EXPIRY; {ADD} --defaults",
    ),
    Fault(
        "NATS/subjects",
        "warn",
        "EXPIRY binds expired.*.share, not all of expired.0.*",
        "nats stream edit EXPIRY --subjects='expired.*.*'",
    ),
    Fault(
        "NATS/limits",
        "warn",
        "1 messages of a subject: older ones are dropped, whether or not they were consumed",
        "nats stream edit EXPIRY --max-msgs-per-subject=-1",
    ),
)
def a_stream_in_memory(ground: Ground) -> Scene:
    """Which keeps one message of a subject, and binds what overlaps with what it should bind."""
    account = ground.account()
    account.stream(storage=StorageType.MEMORY, max_msgs_per_subject=1, subjects=["expired.*.share"])
    return Scene(account.settings, account.apply)


@scene(
    Fault(
        "NATS/stream",
        "fail",
        "EXPIRY acks nothing (no_ack): nobody could know what is stored",
        "nats stream edit EXPIRY --ack",
    ),
    Fault(
        "NATS/subjects",
        "fail",
        "EXPIRY binds orders.>, none of expired.0.*",
        "nats stream edit EXPIRY --subjects='orders.>,expired.0.*';"
        " or change BRIDGE_NATS_SUBJECT or BRIDGE_NATS_STREAM",
    ),
    Fault(
        "NATS/limits",
        "warn",
        "100 messages: at a burst the oldest are dropped, whether or not they were consumed",
        "nats stream edit EXPIRY --max-msgs=-1",
    ),
)
def a_stream_for_something_else(ground: Ground) -> Scene:
    """That acks nothing, and is small."""
    account = ground.account()
    account.stream(no_ack=True, max_msgs=100, subjects=["orders.>"])
    return Scene(account.settings, account.apply)


@scene(
    Fault(
        "NATS/limits",
        "fail",
        "the stream is full, and refuses what is new (discard=new)",
        "nats stream edit EXPIRY --max-msgs=-1",
    )
)
def a_stream_that_is_full(ground: Ground) -> Scene:
    """Of one message."""
    account = ground.account()
    account.stream(max_msgs=1, discard=DiscardPolicy.NEW)
    account.work(lambda jetstream: jetstream.publish("expired.0.x"))
    return Scene(account.settings, account.apply)


@scene(
    Fault(
        "NATS/stream",
        "fail",
        "EXPIRY is sealed: it takes no messages",
        f"when its consumers have read it, make it anew: nats stream rm EXPIRY; {ADD} --defaults",
    )
)
def a_stream_that_is_sealed(ground: Ground) -> Scene:
    """For good."""
    account = ground.account()
    account.stream()

    async def seal(jetstream: JetStreamContext) -> None:
        config = (await jetstream.stream_info("EXPIRY")).config
        await jetstream.update_stream(config.evolve(sealed=True))

    account.work(seal)
    return Scene(account.settings, account.apply)


@scene(
    Fault(
        "NATS/stream",
        "fail",
        "EXPIRY is a mirror: it takes no messages",
        "name another one in BRIDGE_NATS_STREAM",
    )
)
def a_stream_that_is_a_mirror(ground: Ground) -> Scene:
    """Of the right one."""
    account = ground.account()
    account.stream(name="ORIGIN")
    account.stream(subjects=None, mirror=StreamSource(name="ORIGIN"))
    settings = account.settings
    return Scene(settings, lambda _: settings.update(nats_stream="ORIGIN"))


@scene(
    Fault(
        "NATS/stream",
        "fail",
        "EXPIRY does not exist and cannot be created: stream THEIRS binds some of expired.*.*",
        "set BRIDGE_NATS_STREAM=THEIRS, or change BRIDGE_NATS_SUBJECT",
    )
)
def a_stream_that_another_is_in_the_way_of(ground: Ground) -> Scene:
    """With the same subjects."""
    account = ground.account()
    account.stream(name="THEIRS")
    return Scene(account.settings, changed(account.settings))


@scene(
    Fault("NATS/stream", "fail", "EXPIRY does not exist", f"{ADD} --defaults; or set BRIDGE_NATS_PROVISION=true"),
)
def a_stream_that_nobody_makes(ground: Ground) -> Scene:
    """Neither the bridge."""
    account = ground.account()
    account.settings["nats_provision"] = "false"
    return Scene(account.settings, account.apply)


@scene(
    Fault(
        "NATS/JetStream",
        "fail",
        "the user may not ask about streams",
        f"{PERMISSIONS}; or create the stream, and set BRIDGE_NATS_PROVISION=false",
    )
)
def a_user_that_may_not_ask_about_streams(ground: Ground) -> Scene:
    """Nor make any."""
    account = ground.account(permissions='{ publish: { deny: "$JS.API.>" } }')
    return Scene(account.settings, account.allow)


@scene(Fault("NATS/JetStream", "fail", "the user may not receive answers", PERMISSIONS))
def a_user_that_may_not_receive_answers(ground: Ground) -> Scene:
    """To its own questions."""
    account = ground.account(permissions='{ subscribe: { deny: "_INBOX.>" } }')
    return Scene(account.settings, account.allow)


@scene(Fault("NATS/permissions", "fail", "user of-<account> may not publish to expired.0.*", PERMISSIONS))
def a_user_that_may_not_publish(ground: Ground) -> Scene:
    """What it is there for."""
    account = ground.account(permissions='{ publish: { deny: "expired.>" } }')
    return Scene(account.settings, account.allow, {"account": account.name})


@scene(
    Fault(
        "NATS/permissions",
        "warn",
        "user of-<account> may not publish to all of expired.0.*: other messages become dead letters",
        PERMISSIONS,
    )
)
def a_user_that_may_publish_a_part(ground: Ground) -> Scene:
    """Not even gap records."""
    allowed = '["expired.0.share", "$JS.API.>", "$SYS.REQ.USER.INFO"]'
    account = ground.account(permissions=f"{{ publish: {allowed} }}")
    return Scene(account.settings, account.allow, {"account": account.name})


@scene(
    Fault(
        "NATS/JetStream",
        "fail",
        "not enabled for this account",
        "enable it in the server's configuration: accounts { NAME { jetstream: enabled } }",
    )
)
def an_account_without_jetstream(ground: Ground) -> Scene:
    """On a server that has it."""
    account = ground.account(jetstream="")
    return Scene(account.settings, lambda _: account.server.set(account.name, "enabled", ""))


@scene(
    Fault(
        "NATS/JetStream",
        "fail",
        "this account has 1 streams, and may not have more",
        "raise max_streams in the account's jetstream { }, in the server's configuration; or delete a stream",
    )
)
def an_account_without_room_for_a_stream(ground: Ground) -> Scene:
    """Beside the one that it has."""
    account = ground.account("{ max_streams: 1 }")
    account.stream(name="OTHER", subjects=["orders.>"])
    return Scene(account.settings, lambda _: account.server.set(account.name, "{ max_streams: 2 }", ""))


@scene(
    Fault(
        "NATS/JetStream",
        "fail",
        "full: it holds <number> of the 5000 bytes that this account may store",
        "raise max_file in the account's jetstream { }, in the server's configuration; or delete old messages",
    )
)
def an_account_without_room_for_messages(ground: Ground) -> Scene:
    """After a first one."""
    account = ground.account("{ max_file: 5000 }")
    account.stream()
    account.work(lambda jetstream: jetstream.publish("expired.0.x", b"x" * 2000))
    return Scene(account.settings, lambda _: account.server.set(account.name, "{ max_file: 500000 }", ""))


@scene(
    Fault(
        "NATS/connection",
        "fail",
        "NATS at 127.0.0.1:<port> refuses the credentials",
        "check BRIDGE_NATS_USER and BRIDGE_NATS_PASSWORD, BRIDGE_NATS_TOKEN, BRIDGE_NATS_CREDS_FILE,"
        " BRIDGE_NATS_NKEY_SEED or the user in BRIDGE_NATS_URL",
    )
)
def nats_with_another_password(ground: Ground) -> Scene:
    """Than the one that the settings have."""
    account = ground.account()
    settings = account.settings | {"nats_password": "the-old-one"}
    return Scene(settings, lambda _: settings.update(nats_password=SECRET), {"port": account.server.port})


@scene(
    Fault(
        "NATS/JetStream",
        "fail",
        "the server has none",
        "start it with --jetstream, or add jetstream {} to its configuration",
        by_hand=True,
    ),
    Fault(
        "NATS/connection",
        "warn",
        "127.0.0.1:<port>, nats-server <number>.<number>.<number>, takes up to 2048 bytes: messages of longer keys",
        "max_payload: 4096 (or more) in the server's configuration",
        by_hand=True,
    ),
)
def nats_that_only_passes_on_what_is_small(ground: Ground) -> Scene:
    """It keeps nothing."""
    server = ground.stack.enter_context(WithoutJetStream("max_payload: 2048"))
    return Scene(ground.with_redis(nats_url=server.url), by_hand, {"port": server.port})


@scene(
    Fault(
        "NATS/replicas",
        "warn",
        "1: an ack is kept by one server only, and lost with it",
        "nats stream edit EXPIRY --replicas=3",
    )
)
def a_stream_on_one_server_of_a_cluster(ground: Ground) -> Scene:
    """That has three."""
    settings = ground.nats_cluster()
    url = settings["nats_url"]
    nats_cli(servers=url)(f"{ADD} --replicas=1 --defaults")

    def apply(mend: str) -> None:
        nats_cli(servers=url)(mend)
        asyncio.run(wait_until(lambda: in_sync(url, 3), timeout=30))

    return Scene(settings, apply)


# Kafka


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


# With a message that is published


@scene(Fault("NATS/test publish", "fail", "the user may not publish to expired.0._check", PERMISSIONS))
def a_user_whose_rights_nobody_tells(ground: Ground) -> Scene:
    """And that may only make streams."""
    account = ground.account(permissions='{ publish: "$JS.API.>" }')
    account.stream()
    return Scene(account.settings, account.allow, flags=PUBLISH)


@scene(
    Fault(
        "NATS/subjects",
        "fail",
        "EXPIRY binds orders.>, none of expired.0.*",
        "nats stream edit EXPIRY --subjects='orders.>,expired.0.*';"
        " or change BRIDGE_NATS_SUBJECT or BRIDGE_NATS_STREAM",
    ),
    Fault(
        "NATS/message size",
        "warn",
        "up to 100 bytes",
        "nats stream edit EXPIRY --max-msg-size=4096 (or more; -1 for no limit)",
    ),
    Fault(
        "NATS/test publish",
        "fail",
        "no stream binds expired.0._check",
        "nats stream edit EXPIRY --subjects='orders.>,expired.0.*'",
    ),
)
def a_stream_that_the_message_does_not_find(ground: Ground) -> Scene:
    """And does not fit into."""
    account = ground.account()
    account.stream(subjects=["orders.>"], max_msg_size=100)
    return Scene(account.settings, account.apply, flags=PUBLISH)


@scene(
    Fault(
        "NATS/message size",
        "warn",
        "up to 100 bytes",
        "nats stream edit EXPIRY --max-msg-size=4096 (or more; -1 for no limit)",
    ),
    Fault(
        "NATS/test publish",
        "fail",
        "EXPIRY refuses it: message size exceeds maximum allowed (error 10054)",
        "nats stream edit EXPIRY --max-msg-size=-1",
    ),
)
def a_stream_that_the_message_does_not_fit_into(ground: Ground) -> Scene:
    """Nor would any other."""
    account = ground.account()
    account.stream(max_msg_size=100)
    return Scene(account.settings, account.apply, flags=PUBLISH)


@scene(
    Fault(
        "NATS/limits",
        "fail",
        "the stream is full, and refuses what is new (discard=new)",
        "nats stream edit EXPIRY --max-msgs=-1",
    ),
    Fault(
        "NATS/test publish",
        "fail",
        "EXPIRY refuses it: maximum messages exceeded (error 10077)",
        "nats stream edit EXPIRY --max-msgs=-1 --max-bytes=-1",
    ),
)
def a_stream_that_has_no_room_for_the_message(ground: Ground) -> Scene:
    """Nor for any other."""
    account = ground.account()
    account.stream(max_msgs=1, discard=DiscardPolicy.NEW)
    account.work(lambda jetstream: jetstream.publish("expired.0.x"))
    return Scene(account.settings, account.apply, flags=PUBLISH)


@scene(
    Fault(
        "NATS/subjects",
        "fail",
        "EXPIRY binds orders.>, none of expired.0.*",
        "nats stream edit EXPIRY --subjects='orders.>,expired.0.*';"
        " or change BRIDGE_NATS_SUBJECT or BRIDGE_NATS_STREAM",
    ),
    Fault(
        "NATS/test publish",
        "fail",
        "another stream than EXPIRY binds expired.0._check",
        "name it in BRIDGE_NATS_STREAM (nats stream find --subject=expired.0._check), or change BRIDGE_NATS_SUBJECT",
    ),
)
def a_stream_beside_the_right_one(ground: Ground) -> Scene:
    """The message finds the right one."""
    account = ground.account()
    account.stream(subjects=["orders.>"])
    account.stream(name="RIGHT")
    settings = account.settings
    return Scene(settings, lambda _: settings.update(nats_stream="RIGHT"), flags=PUBLISH)


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


# The test


def test_the_list_has_more_than_twenty_faults() -> None:
    faults = {(fault.row, fault.found) for parameters in SCENES for fault in parameters.values[1]}
    assert len(faults) >= 40


@pytest.mark.parametrize(("build", "faults"), SCENES)
def test_each_planted_fault_is_found_and_its_mend_mends_it(
    ground: Ground, build: Callable[[Ground], Scene], faults: tuple[Fault, ...]
) -> None:
    made = build(ground)
    rows = examine(int(any(fault.level == "fail" for fault in faults)), *made.flags, **made.settings)
    assert wrong(rows, made) == {fault.row: fault.level for fault in faults}
    for fault in faults:
        row = rows[fault.row]
        assert re.match(pattern(fault.found, made), row["found"]), row["found"]
        assert re.fullmatch(pattern(fault.mend, made), row["mend"]), row["mend"]
    left = {fault.row: fault.level for fault in faults if fault.by_hand}
    if len(left) == len(faults):
        return
    for fault in faults:
        if not fault.by_hand:
            made.apply(rows[fault.row]["mend"])
    rows = examine(int("fail" in left.values()), *made.flags, **made.settings)
    assert wrong(rows, made) == left


def wrong(rows: Rows, made: Scene) -> dict[str, str]:
    """What `check` found."""
    return {row: level for row, level in levels(rows).items() if made.also.get(row) != level}


def pattern(text: str, made: Scene) -> str:
    """What matches `text` with the scene's names in it."""
    for name, value in made.names.items():
        text = text.replace(f"<{name}>", str(value))
    return re.escape(text).replace("<number>", r"\d+")
