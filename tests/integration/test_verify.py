"""`expiry-bridge verify`: an oracle that tells the truth of a real deployment, and leaves nothing behind."""

import json
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import nats
import pytest
from nats.aio.client import Client
from redis.asyncio import Redis

from bridge.cloudevents import Encoder
from bridge.commands.embedded import free_port
from bridge.commands.verify.plan import PREFIX
from bridge.expiration import Expiration, Identity, Via
from tests.conformance.kafka_rig import KafkaRig
from tests.harness import NAMES, passed, user_of
from tests.kafka_server import KafkaServer
from tests.servers import Bridge, NatsServer, RedisServer, require, wait_until

SUBJECT = f"expired.0.{PREFIX}"
QUICK = ("--keys", "200", "--rate", "400", "--ttl-min", "300ms", "--ttl-max", "1s")
LONG = ("--keys", "40", "--rate", "400", "--ttl-min", "2s", "--ttl-max", "4s")
"""Time enough to do something before the keys expire. With two controls: one is deleted, so 41 keys are there."""
HASTY = ("--patience", "0s")
PATIENCE = 60.0

Found = Mapping[str, Any]


class Verification(Bridge):
    """A process of `expiry-bridge verify --json`."""

    def __init__(self, settings: Mapping[str, str], *flags: str) -> None:
        super().__init__(settings, "verify", "--json", *flags)

    async def found(self, status: int) -> Found:
        """What it printed; it must end with that status."""
        ended = await self.exited(PATIENCE)
        assert ended == status, self.log()
        answer: Found = json.loads(self.output())
        assert answer["not_cleaned_up"] == 0
        return answer


class World:
    """A Redis, where the bridge finds it and its broker, and what is in them."""

    def __init__(self, settings: Mapping[str, str], user: Redis) -> None:
        self.settings = settings
        self.user = user

    def bridge(self) -> Bridge:
        return Bridge(self.settings)

    async def verified(self, *flags: str, status: int = 0, **settings: str) -> Found:
        """What a verification finds from its beginning to its end."""
        async with self.verification(*flags, **settings) as verification:
            return await verification.found(status)

    @asynccontextmanager
    async def verification(self, *flags: str, **settings: str) -> AsyncIterator[Verification]:
        """One that runs; at the end of the block, no key of its may be left."""
        changed = {f"BRIDGE_{name.upper()}": value for name, value in settings.items()}
        with Verification({**self.settings, **changed}, *flags) as verification:
            yield verification
        assert await self.keys() == []

    async def keys(self) -> list[bytes]:
        """Those of all verifications that are there."""
        return sorted([key async for key in self.user.scan_iter(match=f"{PREFIX}:*")])

    async def planted(self, count: int) -> list[bytes]:
        """Return when there are so many."""
        found: list[bytes] = []

        async def are_there() -> bool:
            found[:] = await self.keys()
            return len(found) >= count

        await wait_until(are_there, lambda: f"{count} keys, there are {found}")
        return found


@pytest.fixture
async def world(redis_server: RedisServer, nats_server: NatsServer) -> AsyncIterator[World]:
    """With JetStream, and no bridge yet."""
    async with user_of(redis_server) as user:
        yield World({"BRIDGE_REDIS_URL": redis_server.url, "BRIDGE_NATS_URL": nats_server.url}, user)


@pytest.fixture
def one_redis() -> Iterator[RedisServer]:
    """For what is no matter of the kind."""
    require(RedisServer)
    with RedisServer() as server:
        yield server


@asynccontextmanager
async def client_of(world: World) -> AsyncIterator[Client]:
    client = await nats.connect(world.settings["BRIDGE_NATS_URL"])
    try:
        yield client
    finally:
        await client.close()


async def no_bridge_any_more(world: World) -> None:
    """A bridge has run, so that there is a stream; now there is none."""
    async with world.bridge() as bridge:
        await bridge.ready()
        assert await bridge.stop() == 0


def announced(key: bytes, deadline_ms: int, /, **changed: Any) -> bytes:  # noqa: ANN401 - of any field
    """The body of the message that a bridge would publish of the key; or one with some fields `changed`."""
    id_ = Identity("/redis", 0).of_deadline(key, deadline_ms)
    event = {"id": id_, "key": key, "deadline_ms": deadline_ms, "observed_ms": deadline_ms + 1, "via": Via.NOTIFICATION}
    return Encoder("/redis", 0, "structured").encode(Expiration(**{**event, **changed})).body


# A deployment that works.


async def test_all_is_delivered_by_a_bridge_that_works_and_the_lags_are_told(world: World) -> None:
    async with world.bridge() as bridge:
        await bridge.ready()
        found = await world.verified(*QUICK)

    lag = found["lag_ms"]
    assert 0 < lag["p50"] <= lag["p99"] <= lag["max"]
    assert found == {
        "ok": True,
        "interrupted": False,
        "run": found["run"],
        "read_from": f"JetStream stream EXPIRY, subject {SUBJECT}",
        "keys": 200,
        "delivered": 200,
        "without_deadline": 0,
        "missed": 0,
        "missed_keys": [],
        "duplicates": 0,
        "false": 0,
        "false_reasons": {},
        "false_keys": [],
        "controls": 4,
        "ambiguous": 0,
        "lag_ms": lag,
        "lag_clocks": ["broker"],
        "clock_skew_ms": found["clock_skew_ms"],
        "not_cleaned_up": 0,
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"BRIDGE_CONTENT_MODE": "binary"},
        {"BRIDGE_NATS_SUBJECT": "gone.{db}.of-{key}.now"},
        {"BRIDGE_NATS_SUBJECT": "gone"},
        {"BRIDGE_KEYS": f"share:*,{PREFIX}:*", "BRIDGE_SOURCE": "/another"},
    ],
    ids=["binary", "subject of each key", "one subject", "other patterns and source"],
)
async def test_what_is_delivered_is_understood_whatever_the_settings(
    one_redis: RedisServer, nats_server: NatsServer, settings: Mapping[str, str]
) -> None:
    servers = {"BRIDGE_REDIS_URL": one_redis.url, "BRIDGE_NATS_URL": nats_server.url}
    async with user_of(one_redis) as user:
        world = World({**servers, **settings}, user)
        async with world.bridge() as bridge:
            await bridge.ready()
            found = await world.verified("--keys", "20", *QUICK[2:])
    assert (found["delivered"], found["false"], found["without_deadline"]) == (20, 0, 0)


async def test_people_get_a_table(world: World) -> None:
    async with world.bridge() as bridge:
        await bridge.ready()
        with Bridge(world.settings, "verify", "--keys", "3", *QUICK[2:]) as verification:
            assert await verification.exited() == 0, verification.log()
            shown = verification.output()
    lines = [line.split() for line in shown.splitlines()]
    for row in (["delivered", "3"], ["missed", "0"], ["duplicates", "0"], ["false", "0"]):
        assert row in lines
    assert "3 set to expire, 2 taken back before" in shown
    assert "from the deadline on Redis's clock to the broker's timestamp" in shown
    assert shown.endswith("All delivered.\n")
    assert "\x1b" not in shown


async def test_the_users_keys_and_other_verifications_are_left_alone(world: World) -> None:
    theirs = {b"share:1": b"a", f"{PREFIX}:0123456789ab:0".encode(): b"b", PREFIX.encode(): b"c"}
    async with world.bridge() as bridge:
        await bridge.ready()
        for key, value in theirs.items():
            await world.user.set(key, value, ex=1000)
        with Verification(world.settings, "--keys", "20", *QUICK[2:]) as verification:
            await verification.found(0)
        assert {key: await world.user.get(key) for key in theirs} == theirs
        assert all([await world.user.ttl(key) > 0 for key in theirs])


# A deployment that does not.


async def test_everything_is_missed_if_no_bridge_runs(world: World) -> None:
    await no_bridge_any_more(world)

    found = await world.verified(*QUICK, *HASTY, status=1)

    assert (found["keys"], found["delivered"], found["missed"], found["false"]) == (200, 0, 200, 0)
    assert len(found["missed_keys"]) == 5
    assert all(key.startswith(f"{PREFIX}:{found['run']}:") for key in found["missed_keys"])
    assert found["lag_ms"] is None


async def test_people_are_told_what_was_missed_and_where_to_look(world: World) -> None:
    await no_bridge_any_more(world)
    with Bridge(world.settings, "verify", "--keys", "9", *QUICK[2:], *HASTY) as verification:
        assert await verification.exited() == 1
        shown = verification.output()
    assert f"Missed: {PREFIX}:" in shown
    assert "and 4 more" in shown
    assert "is the bridge running, and ready? See `expiry-bridge status`" in shown
    assert shown.endswith("Failed: 9 missed.\n")


async def test_nothing_is_missed_if_the_bridge_is_killed_in_the_middle_and_started_again(world: World) -> None:
    async with world.bridge() as first:
        await first.ready()
        async with world.verification(*LONG) as verification:
            await world.planted(41)

            async def recorded() -> bool:  # what expires before it is recorded, while nobody listens, is lost
                return await world.user.zcard(NAMES.deadlines) == 41

            async def half_gone() -> bool:
                return len(await world.keys()) < 20

            await wait_until(recorded)
            await wait_until(half_gone)
            first.kill()
            async with world.bridge() as second:
                found = await verification.found(0)
                assert await second.stop() == 0
    assert (found["delivered"], found["missed"], found["false"]) == (40, 0, 0)


async def test_nothing_is_missed_if_the_broker_is_killed_in_the_middle_and_started_again(
    world: World, nats_server: NatsServer
) -> None:
    async with world.bridge() as bridge:
        await bridge.ready()
        async with world.verification(*QUICK[:2], "--rate", "100", *QUICK[4:]) as verification:
            await world.planted(30)
            nats_server.kill()
            nats_server.start()
            found = await verification.found(0)
    assert (found["delivered"], found["missed"], found["false"]) == (200, 0, 0)


async def test_a_broker_that_does_not_come_back_is_an_error_and_no_verdict(
    world: World, nats_server: NatsServer
) -> None:
    async with world.bridge() as bridge:
        await bridge.ready()
        async with world.verification(*QUICK, *HASTY) as verification:
            await world.planted(10)
            nats_server.kill()
            assert await verification.exited(PATIENCE) == 1
            said = verification.log()
        bridge.kill()
    assert verification.settings["BRIDGE_NATS_URL"].removeprefix("nats://") in said
    assert "delivered" not in said


# What ought not to be.


class Forger:
    """Publishes past the bridge, for the keys of a verification that no bridge takes part in."""

    def __init__(self, client: Client, world: World) -> None:
        self._jetstream = client.jetstream()
        self._user = world.user

    async def deadline_of(self, key: bytes) -> int:
        return int(await self._user.execute_command("PEXPIRETIME", key))  # type: ignore[no-untyped-call]

    async def publish(self, body: bytes, **headers: str) -> None:
        await self._jetstream.publish(SUBJECT, body, headers=headers or None)

    @classmethod
    @asynccontextmanager
    async def of(cls, world: World) -> AsyncIterator[Self]:
        async with client_of(world) as client:
            yield cls(client, world)


async def test_messages_that_are_forged_are_false_each_for_its_reason(world: World) -> None:
    await no_bridge_any_more(world)
    async with Forger.of(world) as forger, world.verification(*LONG, *HASTY) as verification:
        early, later, other_id = (await world.planted(41))[-3:]
        deadline_ms = await forger.deadline_of(early)
        # One says so itself, one lies.
        await forger.publish(announced(early, deadline_ms, observed_ms=deadline_ms - 1))
        await forger.publish(announced(early, deadline_ms))
        await forger.publish(announced(later, await forger.deadline_of(later) + 1))
        await forger.publish(announced(other_id, await forger.deadline_of(other_id), id="0" * 32))
        for strange in (b"999999", b"1 ", b"+1", b"007", b""):
            await forger.publish(announced(early.rpartition(b":")[0] + b":" + strange, deadline_ms))
        # And what is nobody's business.
        await forger.publish(announced(b"share:1", deadline_ms))
        await forger.publish(b"no event at all")
        found = await verification.found(1)
    assert found["false_reasons"] == {"early": 2, "mistaken": 2, "no_such_key": 5}
    assert (found["false"], found["delivered"], found["missed"]) == (9, 0, 40)
    assert len(found["false_keys"]) == 5
    assert found["ok"] is False


async def test_a_false_message_fails_a_verification_in_which_nothing_is_missed(world: World) -> None:
    async with world.bridge() as bridge:
        await bridge.ready()
        async with Forger.of(world) as forger, world.verification(*LONG) as verification:
            key = (await world.planted(41))[-1]
            await forger.publish(announced(key, await forger.deadline_of(key)))
            found = await verification.found(1)
    assert (found["false"], found["delivered"], found["missed"]) == (1, 40, 0)
    assert found["false_keys"] == [key.decode()]


async def test_keys_that_are_taken_back_must_not_be_announced_but_may_be_if_deleted_in_a_gap(world: World) -> None:
    await no_bridge_any_more(world)
    async with Forger.of(world) as forger, world.verification(*LONG, *HASTY) as verification:
        keys = await world.planted(41)
        (put_off,) = [
            key for key in keys if await forger.deadline_of(key) > 2_000_000 + await forger.deadline_of(keys[-1])
        ]
        prefix = put_off.rpartition(b":")[0]
        (deleted,) = {prefix + b":%d" % number for number in range(42)} - set(keys)
        now_ms = 1_000_000
        for key in (put_off, deleted):
            await forger.publish(announced(key, now_ms))
            await forger.publish(announced(key, now_ms, via=Via.SWEEP))
        found = await verification.found(1)
    assert found["controls"] == 2
    assert found["false_reasons"] == {"control": 3}
    assert found["ambiguous"] == 1


async def test_a_copy_of_a_delivered_message_is_a_duplicate_and_no_failure(world: World) -> None:
    async with world.bridge() as bridge:
        await bridge.ready()
        async with client_of(world) as client, world.verification(*LONG) as verification:
            jetstream = client.jetstream()
            subscription = await jetstream.subscribe(SUBJECT)
            stored = await subscription.next_msg(PATIENCE)
            await jetstream.publish(SUBJECT, stored.data)  # without Nats-Msg-Id
            found = await verification.found(0)
    assert (found["delivered"], found["duplicates"], found["false"]) == (40, 1, 0)


async def test_an_expiration_without_a_deadline_is_delivered_once(world: World) -> None:
    await no_bridge_any_more(world)
    unknown = {"deadline_ms": None, "id": "1" * 32}
    async with Forger.of(world) as forger, world.verification(*LONG, "--patience", "5s") as verification:
        keys = await world.planted(41)
        deadline_ms, key = min([(await forger.deadline_of(key), key) for key in keys])
        await passed(world.user, deadline_ms)
        for changed in (unknown, unknown, {**unknown, "id": "2" * 32}, {}):
            await forger.publish(announced(key, deadline_ms, **changed))
        found = await verification.found(1)
    assert (found["delivered"], found["without_deadline"], found["duplicates"]) == (1, 1, 1)
    assert found["false_reasons"] == {"mistaken": 2}


# What it cannot work with.


async def test_patterns_that_leave_its_keys_out_are_an_error_before_anything_is_set(world: World) -> None:
    settings = {**world.settings, "BRIDGE_KEYS": "share:*,session:*"}
    with Verification(settings) as verification:
        assert await verification.exited() == 2
        (line,) = verification.log().splitlines()
    assert line == (
        "BRIDGE_KEYS: share:*,session:* leaves out the keys of a verification;"
        " add expiry-bridge-verify:* to it, for the bridge, too"
    )


async def test_standard_output_cannot_be_read_back(world: World) -> None:
    with Verification(world.settings, "--sink", "stdout") as verification:
        assert await verification.exited() == 2
        (line,) = verification.log().splitlines()
    assert line == "BRIDGE_SINK: stdout cannot be read back by another process; choose jetstream or kafka"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--ttl-min", "6s"), "--ttl-min: 6000 ms is more than --ttl-max, 5000 ms"),
        (("--keys", "1000001"), "--keys: must be 1 to 1000000"),
        (("--rate", "50001"), "--rate: must be 1 to 50000"),
        (("--ttl-min", "99ms"), "--ttl-min: must be 100 to 3600000 ms"),
        (("--ttl-max", "61m"), "--ttl-max: must be 100 to 3600000 ms"),
        (("--patience", "61m"), "--patience: must be 0 to 3600000 ms"),
    ],
)
async def test_a_plan_beyond_the_limits_is_an_error_of_usage(flags: tuple[str, ...], said: str) -> None:
    with Verification({}, *flags) as verification:
        assert await verification.exited() == 2
        assert verification.log().splitlines() == [said]


async def test_a_redis_that_cannot_be_reached_is_one_clear_line(nats_server: NatsServer) -> None:
    port = free_port()
    settings = {"BRIDGE_REDIS_URL": f"redis://:s3cret@127.0.0.1:{port}", "BRIDGE_NATS_URL": nats_server.url}
    with Verification(settings) as verification:
        assert await verification.exited() == 1
        (line,) = verification.log().splitlines()
    assert f"Redis at 127.0.0.1:{port}" in line
    assert "s3cret" not in line


async def test_a_broker_that_cannot_be_reached_is_one_clear_line(world: World) -> None:
    port = free_port()
    with Verification(world.settings, "--nats-url", f"nats://127.0.0.1:{port}") as verification:
        assert await verification.exited() == 1
        (line,) = verification.log().splitlines()
    assert f"127.0.0.1:{port}" in line
    assert await world.user.dbsize() == 0


async def test_a_stream_that_does_not_exist_or_is_a_work_queue_is_one_clear_line(world: World) -> None:
    for made, reason in ((False, "stream EXPIRY does not exist"), (True, "stream EXPIRY is a work queue")):
        if made:
            async with client_of(world) as client:
                await client.jetstream().add_stream(name="EXPIRY", subjects=["expired.>"], retention="workqueue")
        with Verification(world.settings) as verification:
            assert await verification.exited() == 1
            (line,) = verification.log().splitlines()
        assert reason in line
    assert await world.user.dbsize() == 0


async def test_a_redis_user_without_the_right_to_set_keys_is_told_which_it_needs(world: World) -> None:
    await no_bridge_any_more(world)
    await world.user.execute_command(  # type: ignore[no-untyped-call]
        "ACL", "SETUSER", "bridge", "on", ">s3cret", "~{expiry-bridge:*", "%R~*", "&*", "+@all"
    )
    settings = {**world.settings, "BRIDGE_REDIS_USERNAME": "bridge", "BRIDGE_REDIS_PASSWORD": "s3cret"}
    with Verification(settings, *QUICK) as verification:
        assert await verification.exited() == 1
        (line,) = verification.log().splitlines()
    assert "ACL SETUSER bridge (~expiry-bridge-verify:* +set +del +pexpireat +time)" in line

    await world.user.execute_command(  # type: ignore[no-untyped-call]
        "ACL", "SETUSER", "bridge", "(~expiry-bridge-verify:* +set +del +pexpireat +time)"
    )
    with Verification(settings, "--keys", "9", *QUICK[2:], *HASTY) as verification:
        assert (await verification.found(1))["missed"] == 9


# Its end.


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_ctrl_c_tells_what_is_known_and_deletes_the_keys(
    world: World, number: signal.Signals, status: int
) -> None:
    async with world.bridge() as bridge:
        await bridge.ready()
        async with world.verification("--keys", "100000", *LONG[2:]) as verification:
            await world.planted(300)
            verification.send_signal(number)
            found = await verification.found(status)
    assert found["interrupted"] is True
    assert found["ok"] is False
    assert 300 <= found["keys"] < 100_000
    assert found["delivered"] + found["missed"] == found["keys"]


async def test_a_verification_that_is_killed_leaves_no_key_without_a_deadline(world: World) -> None:
    await no_bridge_any_more(world)
    with Verification(world.settings, *LONG) as verification:
        keys = await world.planted(41)
        verification.kill()
    assert all([await world.user.pttl(key) > 0 for key in keys])


async def test_nothing_is_left_at_the_broker(world: World) -> None:
    await no_bridge_any_more(world)
    await world.verified("--keys", "9", *QUICK[2:], *HASTY, status=1)
    async with client_of(world) as client:
        assert await client.jetstream().consumers_info("EXPIRY") == []


# Kafka.


@pytest.fixture
async def kafka_world(one_redis: RedisServer, kafka_server: KafkaServer) -> AsyncIterator[World]:
    """With a topic of its own, of several partitions."""
    rig = KafkaRig(kafka_server)
    settings = {
        "BRIDGE_REDIS_URL": one_redis.url,
        "BRIDGE_SINK": "kafka",
        "BRIDGE_KAFKA_BOOTSTRAP_SERVERS": kafka_server.address,
        "BRIDGE_KAFKA_TOPIC": rig.topic,
    }
    async with user_of(one_redis) as user:
        yield World(settings, user)


@pytest.mark.parametrize("mode", ["structured", "binary"])
async def test_all_is_delivered_to_kafka_too(kafka_world: World, mode: str) -> None:
    world = World({**kafka_world.settings, "BRIDGE_CONTENT_MODE": mode}, kafka_world.user)
    async with world.bridge() as bridge:
        await bridge.ready(PATIENCE)
        before = await world.verified("--keys", "20", *QUICK[2:])
        found = await world.verified(*QUICK)
    assert before["delivered"] == 20
    assert (found["delivered"], found["missed"], found["duplicates"], found["false"]) == (200, 0, 0, 0)
    assert found["read_from"] == f"Kafka topic {world.settings['BRIDGE_KAFKA_TOPIC']}"
    assert found["lag_clocks"] == ["redis"]
    assert 0 < found["lag_ms"]["p50"] <= found["lag_ms"]["max"]


async def test_the_time_that_kafka_stored_a_message_is_taken_where_it_keeps_it(
    kafka_world: World, kafka_server: KafkaServer
) -> None:
    rig = KafkaRig(kafka_server)
    await rig.create(message_timestamp_type="LogAppendTime")
    world = World({**kafka_world.settings, "BRIDGE_KAFKA_TOPIC": rig.topic}, kafka_world.user)
    async with world.bridge() as bridge:
        await bridge.ready(PATIENCE)
        found = await world.verified("--keys", "20", *QUICK[2:])
    assert (found["delivered"], found["lag_clocks"]) == (20, ["broker"])
    assert found["lag_ms"]["p50"] > 0


async def test_a_topic_that_kafka_gets_with_the_first_message_is_read_from_its_beginning(kafka_world: World) -> None:
    topic = kafka_world.settings["BRIDGE_KAFKA_TOPIC"]
    world = World({**kafka_world.settings, "BRIDGE_KAFKA_TOPIC": f"{topic}.{{prefix}}"}, kafka_world.user)
    async with world.bridge() as bridge:
        await bridge.ready(PATIENCE)
        found = await world.verified("--keys", "20", *QUICK[2:])
    assert found["read_from"] == f"Kafka topic {topic}.expiry-bridge-verify"
    assert (found["delivered"], found["false"]) == (20, 0)


async def test_nothing_is_missed_if_kafka_is_killed_in_the_middle_and_started_again(
    kafka_world: World, kafka_server: KafkaServer
) -> None:
    async with kafka_world.bridge() as bridge:
        await bridge.ready(PATIENCE)
        async with kafka_world.verification(*LONG) as verification:
            await kafka_world.planted(41)
            kafka_server.kill()
            kafka_server.start()
            found = await verification.found(0)
    assert (found["delivered"], found["missed"], found["false"]) == (40, 0, 0)


async def test_everything_is_missed_if_no_bridge_writes_to_kafka(kafka_world: World) -> None:
    with Verification(kafka_world.settings) as verification:
        assert await verification.exited() == 1
        (line,) = verification.log().splitlines()
    assert "does not exist: check BRIDGE_KAFKA_TOPIC" in line

    async with kafka_world.bridge() as bridge:
        await bridge.ready(PATIENCE)
        assert await bridge.stop() == 0
    found = await kafka_world.verified("--keys", "20", *QUICK[2:], *HASTY, status=1)
    assert (found["delivered"], found["missed"]) == (0, 20)


async def test_a_kafka_that_cannot_be_reached_is_one_clear_line(one_redis: RedisServer) -> None:
    port = free_port()
    settings = {"BRIDGE_REDIS_URL": one_redis.url, "BRIDGE_SINK": "kafka"}
    with Verification(settings, "--kafka-bootstrap-servers", f"127.0.0.1:{port}") as verification:
        assert await verification.exited() == 1
        (line,) = verification.log().splitlines()
    assert f"Kafka at 127.0.0.1:{port} cannot be reached" in line
