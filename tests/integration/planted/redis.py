"""What can be wrong with Redis."""

import asyncio

from redis import Redis

from bridge.commands.embedded import free_port
from tests.integration.doctor import SECRET
from tests.integration.ground import Ground, Settings
from tests.integration.mends import Apply, redis_cli
from tests.integration.planted.scenes import Fault, Scene, Scenes
from tests.support.servers import wait_until

IN_ITS_FILE = ", and the same in its configuration file"
scene = Scenes()


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
        "client-output-buffer-limit pubsub: 256 KiB: at a burst",
        f'CONFIG SET client-output-buffer-limit "pubsub 32mb 8mb 60"{IN_ITS_FILE}',
    ),
    Fault(
        "Redis/command limits",
        "warn",
        "client-query-buffer-limit 1 MiB, maxmemory-clients 2 MiB: where keys are long",
        f"CONFIG SET client-query-buffer-limit 1gb maxmemory-clients 0{IN_ITS_FILE}",
    ),
    Fault("Redis/hz", "warn", "hz 500: costs CPU", "CONFIG SET hz 10"),
    Fault(
        "Redis/permissions",
        "fail",
        "user limited may not run, or not on the bridge's keys and channels: evalsha, zadd",
        "ACL SETUSER limited (~{expiry-bridge:* &__keyevent@0__:* &__keyevent@*__:expired &{expiry-bridge:*"
        " +client|setname +config|get +del +evalsha +exists +get +hdel +hget +hgetall +hincrby +hmget +hset +info"
        " +pexpiretime +ping +publish +pubsub|numsub"
        " +scan +script|load +set +subscribe +time +xadd +xdel +xinfo|stream +xlen +xrange +xrevrange +zadd +zcard"
        " +zmscore +zrange +zrem +zscan) (%R~{expiry-bridge:* %R~* +exists +pexpiretime)",
    ),
)
def redis_as_it_came_and_worse(ground: Ground) -> Scene:
    """And a user that lacks rights."""
    wrong = {
        "notify-keyspace-events": "Kx",
        "maxmemory-policy": "allkeys-lru",
        "appendonly": "no",
        "client-output-buffer-limit": "pubsub 256kb 0 0",
        "client-query-buffer-limit": "1mb",
        "maxmemory-clients": "2mb",
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

    def apply(remedy: str) -> None:
        assert "BGSAVE" in remedy
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
        "Redis/canary",
        "fail",
        "a key of the bridge's own cannot be set: Redis at 127.0.0.1:<port>: NOREPLICAS",
        "start the replicas that min-replicas-to-write asks for; or CONFIG SET min-replicas-to-write 0",
    )
)
def redis_that_waits_for_replicas(ground: Ground) -> Scene:
    """There are none, and so it takes no writes."""
    server = ground.redis({"min-replicas-to-write": "1"})
    apply = redis_cli(server.port)
    settings = {"redis_url": server.url, "sink": "stdout"}
    return Scene(settings, lambda remedy: apply(remedy.partition("; or ")[2]), {"port": server.port})


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
        settings, lambda remedy: settings.update(redis_url=f"redis://{remedy.split()[-1]}"), {"port": primary.port}
    )


@scene(
    Fault(
        "Redis/role",
        "fail",
        "a node of a cluster: it has only some of the keys, and may not have the bridge's own",
        "set BRIDGE_REDIS_URL to redis+cluster://127.0.0.1:<port>",
    )
)
def redis_that_is_a_node_of_a_cluster(ground: Ground) -> Scene:
    """Of only one, so that it has no replica either."""
    server = ground.redis({"cluster-enabled": "yes", "cluster-port": str(free_port())})
    served(server.port)
    settings = {"redis_url": server.url, "sink": "stdout"}
    return Scene(settings, to_that_url(settings), {"port": server.port}, {"Redis/cluster": "warn"})


@scene(
    Fault(
        "Redis/cluster",
        "fail",
        "383 of 16384 slots are served by no primary: usually a cluster then refuses writes",
        "redis-cli --cluster fix 127.0.0.1:<port>",
    ),
    Fault(
        "Redis/canary",
        "fail",
        "a key of the bridge's own cannot be set: the cluster is down",
        "see what it lacks: redis-cli --cluster check HOST:PORT",
    ),
)
def redis_cluster_that_lacks_slots(ground: Ground) -> Scene:
    """Which the only node could serve."""
    server = ground.redis({"cluster-enabled": "yes", "cluster-port": str(free_port())})
    with Redis(port=server.port) as admin:
        admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_000)

    def apply(remedy: str) -> None:
        if "fix" in remedy:  # as the tool does it
            served(server.port, 16_001)

    settings = {"redis_url": f"redis+cluster://127.0.0.1:{server.port}", "sink": "stdout"}
    return Scene(settings, apply, {"port": server.port}, {"Redis/cluster": "warn"})


def served(port: int, first: int = 0) -> None:
    """Have a cluster's only node serve these slots, and so all that there are."""
    with Redis(port=port) as admin:
        admin.execute_command("CLUSTER", "ADDSLOTSRANGE", first, 16_383)
        asyncio.run(wait_until(lambda: admin.cluster("INFO")["cluster_state"] == "ok"))


@scene(
    Fault(
        "Redis/connection",
        "fail",
        "Redis at 127.0.0.1:<port> is no node of a cluster",
        "set BRIDGE_REDIS_URL to redis://127.0.0.1:<port>",
    )
)
def redis_that_is_no_cluster(ground: Ground) -> Scene:
    """Though the settings say so."""
    server = ground.redis()
    settings = {"redis_url": f"redis+cluster://127.0.0.1:{server.port}", "sink": "stdout"}
    return Scene(settings, to_that_url(settings), {"port": server.port})


def to_that_url(settings: Settings) -> Apply:
    """The last word of the remedy is the URL to use."""
    return lambda remedy: settings.update(redis_url=remedy.split()[-1])


@scene(
    Fault(
        "Redis/connection",
        "fail",
        "Redis at 127.0.0.1:<port> refuses the login (",
        "check BRIDGE_REDIS_USERNAME and BRIDGE_REDIS_PASSWORD (or BRIDGE_REDIS_PASSWORD_FILE),"
        " or the user in BRIDGE_REDIS_URL",
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
        "Redis at 127.0.0.1:<port> cannot be reached: ",
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
    right = ground.nats()
    settings = {**right, "redis_url": f"redis://127.0.0.1:{port}", "nats_url": f"nats://127.0.0.1:{port}"}

    def apply(remedy: str) -> None:
        name = "redis_url" if "REDIS" in remedy else "nats_url"
        settings[name] = right[name]

    return Scene(settings, apply, {"port": port})
