"""`expiry-bridge verify`: an oracle that tells the truth of a real deployment, and leaves nothing behind."""

import signal
from collections.abc import AsyncIterator, Mapping

import pytest

from bridge.commands.embedded import free_port
from bridge.commands.verify.plan import PREFIX
from tests.integration.oracle import (
    HASTY,
    LONG,
    PATIENCE,
    QUICK,
    SUBJECT,
    Verification,
    World,
    client_of,
    deadline_of,
    no_bridge_any_more,
)
from tests.support.harness.user import NAMES
from tests.support.redis.commands import user_of
from tests.support.servers import Bridge, NatsServer, RedisServer, require, wait_until


@pytest.fixture
async def world(one_redis: RedisServer, nats_server: NatsServer) -> AsyncIterator[World]:
    """With JetStream, and no bridge yet."""
    async with user_of(one_redis) as user:
        yield World({"BRIDGE_REDIS_URL": one_redis.url, "BRIDGE_NATS_URL": nats_server.url}, user)


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


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "settings",
    [
        {"BRIDGE_CONTENT_MODE": "binary"},
        {"BRIDGE_NATS_SUBJECT": "gone.{db}.of-{key}.now"},
        {"BRIDGE_NATS_SUBJECT": "gone"},
        {"BRIDGE_KEYS": f"share:*,{PREFIX}:*", "BRIDGE_SOURCE": "/another"},
        {"BRIDGE_NATS_DEDUPLICATION": "subject"},
        {"BRIDGE_NATS_DEDUPLICATION": "subject", "BRIDGE_NATS_SUBJECT": "gone.{key}.{id}"},
    ],
    ids=["binary", "subject of each key", "one subject", "other patterns and source", "ids", "keys and ids"],
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
    assert "3 set to expire, 2 deleted or postponed" in shown
    assert "from the deadline on Redis's clock to the broker's timestamp" in shown
    assert shown.endswith("All delivered.\n")
    assert "\x1b" not in shown


@pytest.mark.unmeasured
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


@pytest.mark.unmeasured
async def test_keys_are_set_at_an_even_pace(world: World) -> None:
    await no_bridge_any_more(world)
    flags = ("--keys", "20", "--rate", "20", "--ttl-min", "4s", "--ttl-max", "4s")
    async with world.verification(*flags) as verification:
        keys = await world.planted(21)
        deadlines_ms = sorted([await deadline_of(world.user, key) for key in keys])[:20]  # without the one put off
        verification.send_signal(signal.SIGINT)
        await verification.found(130)
    assert deadlines_ms[-1] - deadlines_ms[0] >= 19 / 20 * 1000 * 0.9
    # 200 ms, if Redis's clock is known well from the start.
    assert min(later - sooner for sooner, later in zip(deadlines_ms, deadlines_ms[4:], strict=False)) >= 50


# A deployment that does not.


async def test_everything_is_missed_if_no_bridge_runs(world: World) -> None:
    await no_bridge_any_more(world)

    found = await world.verified(*QUICK, *HASTY, status=1)

    assert (found["keys"], found["delivered"], found["missed"], found["false"]) == (200, 0, 200, 0)
    assert len(found["missed_keys"]) == 5
    assert all(key.startswith(f"{PREFIX}:{found['run']}:") for key in found["missed_keys"])
    assert found["lag_ms"] is None


@pytest.mark.unmeasured
async def test_people_are_told_what_was_missed_and_where_to_look(world: World) -> None:
    await no_bridge_any_more(world)
    with Bridge(world.settings, "verify", "--keys", "9", *QUICK[2:], *HASTY) as verification:
        assert await verification.exited() == 1
        shown = verification.output()
    assert f"Missed: {PREFIX}:" in shown
    assert "and 4 more" in shown
    assert "is the bridge running, and ready? See `expiry-bridge status`" in shown
    assert shown.endswith("Failed: 9 missed.\n")


@pytest.mark.unmeasured
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


@pytest.mark.unmeasured
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


@pytest.mark.unmeasured
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


# What it cannot work with.


async def test_patterns_that_leave_its_keys_out_are_an_error_before_anything_is_set(world: World) -> None:
    settings = {**world.settings, "BRIDGE_KEYS": "share:*,session:*"}
    with Verification(settings) as verification:
        assert await verification.exited() == 2
        (line,) = verification.log().splitlines()
    assert line == (
        "BRIDGE_KEYS: share:*,session:* leaves out the keys of a verification;"
        " add expiry-bridge-verify:* to it, here and for the bridge"
    )


@pytest.mark.unmeasured
async def test_patterns_that_exclude_its_keys_are_an_error_that_names_them(world: World) -> None:
    settings = {**world.settings, "BRIDGE_KEYS": "*,!tmp:*,!*verify*"}
    with Verification(settings) as verification:
        assert await verification.exited() == 2
        (line,) = verification.log().splitlines()
    assert line == (
        "BRIDGE_KEYS: *,!tmp:*,!*verify* leaves out the keys of a verification;"
        " remove !*verify* from it, here and for the bridge"
    )


async def test_standard_output_cannot_be_read_back(world: World) -> None:
    with Verification(world.settings, "--sink", "stdout") as verification:
        assert await verification.exited() == 2
        (line,) = verification.log().splitlines()
    assert line == "BRIDGE_SINK: stdout cannot be read back by another process; choose jetstream, kafka or redis"


@pytest.mark.unmeasured
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


async def test_a_nats_user_without_the_right_to_read_is_told_which_it_needs(one_redis: RedisServer) -> None:
    require(NatsServer)
    reader = '{ user: reader, password: s3cret, permissions: { publish: { deny: "$JS.API.CONSUMER.>" } } }'
    with NatsServer(f"authorization {{ users: [{{ user: bridge, password: s3cret }}, {reader}] }}") as server:
        servers = {"BRIDGE_REDIS_URL": one_redis.url, "BRIDGE_NATS_URL": server.url, "BRIDGE_NATS_PASSWORD": "s3cret"}
        async with user_of(one_redis) as user:
            await no_bridge_any_more(World({**servers, "BRIDGE_NATS_USER": "bridge"}, user))
        with Verification({**servers, "BRIDGE_NATS_USER": "reader"}, *QUICK) as verification:
            assert await verification.exited() == 1
            (line,) = verification.log().splitlines()
    assert "the NATS user may not read stream EXPIRY" in line
    assert "allow it to publish to $JS.API.>" in line
    assert "s3cret" not in line


async def test_a_redis_that_goes_away_is_an_error_and_no_verdict(world: World, one_redis: RedisServer) -> None:
    await no_bridge_any_more(world)
    with Verification(world.settings, "--keys", "100000", *LONG[2:]) as verification:
        await world.planted(41)
        one_redis.kill()
        assert await verification.exited(PATIENCE) == 1
        (line,) = verification.log().splitlines()
    assert f"Redis at 127.0.0.1:{one_redis.port}" in line


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


@pytest.mark.unmeasured
async def test_a_verification_that_is_killed_leaves_no_key_without_a_deadline(world: World) -> None:
    await no_bridge_any_more(world)
    with Verification(world.settings, *LONG) as verification:
        keys = await world.planted(41)
        verification.kill()
    assert all([await world.user.pttl(key) > 0 for key in keys])


@pytest.mark.unmeasured
async def test_nothing_is_left_at_the_broker(world: World) -> None:
    await no_bridge_any_more(world)
    await world.verified("--keys", "9", *QUICK[2:], *HASTY, status=1)
    async with client_of(world) as client:
        assert await client.jetstream().consumers_info("EXPIRY") == []
