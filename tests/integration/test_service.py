"""The process: its signals, its standby, its endpoints, and what the settings of the service change."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from signal import SIGTERM

import pytest
from redis.asyncio import Redis

from tests.support.contract import LEASE, LEDGER, OUTBOX, Arrived
from tests.support.deployments.arrivals import START, all_of, arrivals, everything_due, told
from tests.support.deployments.world import settings_for, world
from tests.support.proxy import Protocol, Proxy
from tests.support.redis.commands import (
    DEBUG,
    deadline_after,
    lazily,
    recorded,
    redis_ms,
    run,
    set_for,
    set_known,
    user_of,
)
from tests.support.servers import PATIENCE, Bridge, FreshBridge, NatsServer, RedisServer, require, wait_until


async def depth(redis: Redis) -> int:
    """Expirations in the outbox."""
    return int(await run(redis, "HGET", LEASE, "depth") or 0)


async def reach(redis: Redis, expirations: int) -> None:
    """Return when so many expirations wait in the outbox."""

    async def is_reached() -> bool:
        return await depth(redis) == expirations

    await wait_until(is_reached, f"an outbox of {expirations}")


async def reasons(bridge: Bridge) -> dict[str, str]:
    """Why it is not ready."""
    _, body = await bridge.get("/readyz")
    found: dict[str, str] = json.loads(body).get("reasons", {})
    return found


async def not_ready(bridge: Bridge, condition: str, reason: str) -> None:
    """Return when /readyz says 503 for this reason."""

    async def is_said() -> bool:
        try:
            status, body = await bridge.get("/readyz")
        except OSError:
            return False
        return status == 503 and reason in json.loads(body)["reasons"].get(condition, "")

    await wait_until(is_said, lambda: f"{condition}: {reason}\n{bridge.log()}")


async def metric(bridge: Bridge, name: str) -> float:
    """One sample; of a name without its labels, the sum of all."""
    status, text = await bridge.get("/metrics")
    assert status == 200
    found = re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
    assert found, text
    return sum(map(float, found))


def once_each(arrived: Sequence[Arrived], deadlines: dict[bytes, int]) -> None:
    """Fail unless each key was announced once, with its deadline, by messages that keep the contract."""
    assert told(arrived, deadlines) == {key: [deadline] for key, deadline in deadlines.items()}
    assert set(Counter(message.event["id"] for message in arrived).values()) == {1}
    for message in arrived:
        message.keeps_the_contract()


async def set_many(redis: Redis, name: str, count: int, ms: int) -> dict[bytes, int]:
    """Set keys of which the first lives for `ms` milliseconds, each one 10 ms longer than the one before.

    The ledger knows the deadlines at once; that a bridge records by itself is tried without this.
    """
    return {key: await set_known(redis, key, ms + 10 * n) for n in range(count) if (key := f"{name}:{n}".encode())}


# Signals.


async def test_sigterm_delivers_what_is_claimed_releases_the_lease_and_exits_with_0(
    redis_kind: type[RedisServer],
) -> None:
    with world(redis_kind) as own:
        await own.bridge.ready()
        async with user_of(own.redis) as redis, arrivals(own.nats) as arrived:
            own.nats.pause()
            deadlines = await set_many(redis, "claimed", 20, 100)
            await reach(redis, 20)
            own.bridge.send_signal(SIGTERM)
            await not_ready(own.bridge, "shutdown", "shutting down")
            assert (await own.bridge.get("/livez"))[0] == 200
            own.nats.resume()
            assert await own.bridge.exited() == 0
            await all_of(arrived, deadlines)
            once_each(arrived, deadlines)
            assert await depth(redis) == 0
            assert await redis.xlen(OUTBOX) == 0
            assert await run(redis, "HMGET", LEASE, "holder", "until") == [b"", b"0"]
        log = own.bridge.log(1000)
        assert [log.find(event) for event in ("bridge.signalled", "lease.released", "bridge.stopped")] == sorted(
            log.find(event) for event in ("bridge.signalled", "lease.released", "bridge.stopped")
        )
        assert '"drained": true' in log


@pytest.mark.unmeasured
async def test_what_a_bridge_cannot_drain_in_its_time_is_delivered_by_the_next(redis_kind: type[RedisServer]) -> None:
    with world(redis_kind, shutdown_timeout="0.2") as own:
        await own.bridge.ready()
        async with user_of(own.redis) as redis, arrivals(own.nats) as arrived:
            own.nats.pause()
            deadlines = await set_many(redis, "left", 20, 100)
            await reach(redis, 20)
            assert await own.bridge.stop() == 1
            assert '"drained": false' in own.bridge.log()
            assert await depth(redis) == 20
            own.nats.resume()
            async with Bridge(settings_for(own.redis, own.nats)) as bridge:
                await all_of(arrived, deadlines)
                await reach(redis, 0)
                assert await bridge.stop() == 0
    once_each(arrived, deadlines)


async def test_a_second_signal_ends_the_bridge_at_once(redis_kind: type[RedisServer]) -> None:
    with world(redis_kind, shutdown_timeout="3600") as own:
        await own.bridge.ready()
        async with user_of(own.redis) as redis:
            own.nats.pause()
            await set_many(redis, "hurried", 5, 100)
            await reach(redis, 5)
            own.bridge.send_signal(SIGTERM)
            await not_ready(own.bridge, "shutdown", "shutting down")
            assert await own.bridge.stop() == 128 + SIGTERM
            assert "bridge.stopped" not in own.bridge.log()
            assert await depth(redis) == 5  # the next bridge goes on from here
            own.nats.resume()


# Standby.


@pytest.mark.unmeasured
@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
async def test_a_second_bridge_stands_by_and_takes_over(redis_kind: type[RedisServer], end: str) -> None:
    with world(redis_kind) as own:
        await own.bridge.ready()
        async with (
            Bridge(settings_for(own.redis, own.nats)) as standby,
            user_of(own.redis) as redis,
            arrivals(own.nats) as arrived,
        ):
            await not_ready(standby, "subscription", "standing by: another bridge holds the lease")
            assert (await standby.get("/livez"))[0] == 200
            assert await metric(standby, "bridge_lease_held") == 0
            assert await metric(own.bridge, "bridge_lease_held") == 1
            assert await reasons(own.bridge) == {}
            holder = await run(redis, "HGET", LEASE, "holder")
            # Some expire before the first one ends, some while nobody holds the lease, and some under the second.
            deadlines = await set_many(redis, "handed", 100, 300)
            await all_of(arrived, list(deadlines)[:10])
            assert await metric(own.bridge, "bridge_published_messages_total") > 0
            assert await metric(standby, "bridge_published_messages_total") == 0
            if end == "SIGKILL":
                own.bridge.kill()
            else:
                assert await own.bridge.stop() == 0
            await standby.ready()
            assert await metric(standby, "bridge_lease_held") == 1
            assert await run(redis, "HGET", LEASE, "holder") not in {holder, b""}
            await everything_due(redis, arrived, max(deadlines.values()))
            once_each([message for message in arrived if message.key in deadlines], deadlines)
            assert await standby.stop() == 0


# Endpoints.


async def test_the_endpoints_tell_how_the_bridge_is(redis_kind: type[RedisServer]) -> None:
    with world(redis_kind) as own:
        await own.bridge.ready()
        async with user_of(own.redis) as redis, arrivals(own.nats) as arrived:
            lasting = await set_for(redis, b"lasting:1", 600_000)
            await recorded(redis, b"lasting:1", lasting)
            deadlines = await set_many(redis, "counted", 7, 300)
            await all_of(arrived, deadlines)

            async def is_settled() -> bool:
                outbox = await metric(own.bridge, "bridge_outbox_expirations")
                return (
                    not outbox and await metric(own.bridge, "bridge_published_messages_total") == 7 + 1
                )  # and the start's gap

            await wait_until(is_settled)
            assert await own.bridge.get("/livez") == (200, '{"status": "live"}')
            assert await own.bridge.get("/readyz") == (200, '{"status": "ready"}')
            assert (await own.bridge.get("/nothing"))[0] == 404
            for name in ("subscription_up", "lease_held", "broker_up", "ledger_entries"):
                assert await metric(own.bridge, f"bridge_{name}") == 1, name
            for name in ("in_flight_messages", "dead_letters", "gap_open"):
                assert await metric(own.bridge, f"bridge_{name}") == 0, name
            claimed = [
                await metric(own.bridge, f'bridge_claimed_expirations_total{{via="{via}"}}')
                for via in ("notification", "sweep")
            ]
            assert sum(claimed) == 7
            assert await metric(own.bridge, "bridge_lag_seconds_count") == 7
            text = (await own.bridge.get("/metrics"))[1]
            assert "counted:" not in text
            assert "lasting:" not in text
            own.nats.kill()
            await not_ready(own.bridge, "broker", "NATS")
            assert (await own.bridge.get("/livez"))[0] == 200
            assert await metric(own.bridge, "bridge_broker_up") == 0
            own.nats.start()
            await own.bridge.ready()
            own.redis.kill()
            await not_ready(own.bridge, "subscription", "Redis")
            assert await metric(own.bridge, "bridge_subscription_up") == 0
            own.redis.start()
            await own.bridge.ready()


@pytest.mark.unmeasured
async def test_port_0_means_no_endpoints(redis_kind: type[RedisServer], nats_server: NatsServer) -> None:
    with redis_kind() as redis_server:
        async with FreshBridge(settings_for(redis_server, nats_server, http_port="0")) as bridge:
            await wait_until(lambda: all(event in bridge.log() for event in ("gap.closed", "sink.connected")))
            async with user_of(redis_server) as redis, arrivals(nats_server, START) as arrived:
                await set_for(redis, b"unseen:1", 100)
                await all_of(arrived, {b"unseen:1"})
            assert await bridge.stop() == 0


# What the bridge was not told.


@pytest.mark.unmeasured
async def test_a_key_whose_notification_never_came_is_found_by_a_scan(redis_kind: type[RedisServer]) -> None:
    with world(redis_kind, scan_interval="0.2") as own:
        await own.bridge.ready()
        async with user_of(own.redis) as redis, arrivals(own.nats) as arrived:
            off = ("CONFIG", "SET", "notify-keyspace-events", "")
            on = ("CONFIG", "SET", "notify-keyspace-events", "Egxe")
            setting = ("SET", b"silent:1", "v", "PX", 2000)
            deadline_ms = await deadline_after(redis, b"silent:1", off, setting, on, atomic=True)
            await recorded(redis, b"silent:1", deadline_ms)
            await all_of(arrived, {b"silent:1"})
        once_each(arrived, {b"silent:1": deadline_ms})
        assert await metric(own.bridge, "bridge_epochs_ended_total") == 0


@pytest.mark.unmeasured
async def test_keys_from_before_the_first_start_are_announced(redis_kind: type[RedisServer]) -> None:
    require(NatsServer)
    with redis_kind(DEBUG) as redis_server, NatsServer() as nats_server:
        async with Proxy(redis_server.port, Protocol.RESP) as proxy, user_of(redis_server) as redis:
            # The process starts without Redis, since its start may take longer than the keys live.
            proxy.refuse()
            settings = settings_for(redis_server, nats_server, redis_url=f"redis://127.0.0.1:{proxy.port}/0")
            async with Bridge(settings) as bridge:
                await not_ready(bridge, "subscription", "Redis at")
                await lazily(redis)
                await set_for(redis, b"overdue:1", 1)  # its time is up, but nobody looks at it
                await set_for(redis, b"gone:1", 1)

                async def is_gone() -> bool:
                    return not await redis.exists("gone:1")

                await wait_until(is_gone)
                deadline_ms = await redis_ms(redis) + 8000  # more than the bridge waits before it tries again
                deadlines = {b"old:%d" % number: deadline_ms for number in range(1500)}
                await deadline_after(redis, b"old:0", *(("SET", key, "v", "PXAT", deadline_ms) for key in deadlines))
                await proxy.accept()
                await bridge.ready()
                async with arrivals(nats_server, START) as arrived:
                    await everything_due(redis, arrived, deadline_ms)
                assert await bridge.stop() == 0
    assert told(arrived, [b"overdue:1", b"gone:1"]) == {b"overdue:1": [None]}
    once_each([message for message in arrived if message.key in deadlines], deadlines)


# Settings.


@pytest.mark.unmeasured
async def test_only_keys_that_a_pattern_matches_are_announced_also_when_the_next_bridge_has_other_patterns(
    redis_kind: type[RedisServer],
) -> None:
    everything = [b"share:1", b"share:\xff", b"sess:a", b"sess:ab", b"other:1", b"Share:1", b"xshare:1"]
    with world(redis_kind, keys="share:*,sess:?,sentinel:*") as own:
        await own.bridge.ready()
        narrow = settings_for(own.redis, own.nats, keys="sess:*,sentinel:*")
        async with Bridge(narrow) as bridge, user_of(own.redis) as redis, arrivals(own.nats) as arrived:
            await not_ready(bridge, "subscription", "standing by")
            deadlines = {key: await set_known(redis, key, 400) for key in everything[:3]}
            deadlines |= {key: await set_for(redis, key, 400) for key in everything[3:]}
            await everything_due(redis, arrived, max(deadlines.values()))
            assert told(arrived, everything) == {key: [deadlines[key]] for key in everything[:3]}
            arrived.clear()
            deadlines = {key: await set_for(redis, key, 3500) for key in everything}
            for key in everything[:3]:
                await recorded(redis, key, deadlines[key])
            assert await own.bridge.stop() == 0
            await recorded(redis, b"sess:ab", deadlines[b"sess:ab"])  # found by the scan
            await everything_due(redis, arrived, max(deadlines.values()))
            assert told(arrived, everything) == {key: [deadlines[key]] for key in (b"sess:a", b"sess:ab")}
            assert await redis.zcard(LEDGER) == 0
            assert await bridge.stop() == 0


@pytest.mark.unmeasured
async def test_another_database_has_its_number_in_ids_subjects_and_data(redis_kind: type[RedisServer]) -> None:
    require(NatsServer)
    with redis_kind() as redis_server, NatsServer() as nats_server:
        settings = settings_for(redis_server, nats_server, redis_url=f"{redis_server.url}/5", source="urn:x:y")
        async with (
            Bridge(settings) as bridge,
            user_of(redis_server, 5) as five,
            user_of(redis_server, 0) as zero,
        ):
            await bridge.ready()
            async with arrivals(nats_server) as arrived:
                ledger = "{expiry-bridge:5:0}:deadlines"
                await recorded(five, b"db:5", await set_for(five, b"db:5", 600_000), ledger)
                await set_for(zero, b"db:0", 300)
                deadline_ms = await set_known(five, b"db:5", 300, ledger)
                await everything_due(five, arrived, deadline_ms)
            assert told(arrived, [b"db:0", b"db:5"]) == {b"db:5": [deadline_ms]}
            for message in arrived:
                message.keeps_the_contract(db=5, source="urn:x:y")
            assert await zero.keys("*") == []
            assert await bridge.stop() == 0


@pytest.mark.unmeasured
async def test_a_namespace_of_ones_own_keeps_two_bridges_apart(redis_kind: type[RedisServer]) -> None:
    with world(redis_kind) as own:
        await own.bridge.ready()
        more = {"namespace": "second", "nats_stream": "SECOND", "nats_subject": "second.{db}.{prefix}"}
        async with (
            Bridge(settings_for(own.redis, own.nats, **more)) as second,
            user_of(own.redis) as redis,
            arrivals(own.nats) as arrived,
        ):
            await second.ready()
            async with arrivals(own.nats, stream="SECOND") as also_arrived:
                await recorded(redis, b"both:1", await set_for(redis, b"both:1", 600_000), "{second:0:0}:deadlines")
                deadlines = {b"both:1": await set_known(redis, b"both:1", 300)}
                await all_of(arrived, deadlines)
                await all_of(also_arrived, deadlines)
                heard = await metric(second, "bridge_canary_heard_timestamp_seconds")

                async def canaries_have_expired() -> bool:
                    return await metric(second, "bridge_canary_heard_timestamp_seconds") > heard + 2

                await wait_until(canaries_have_expired, "canaries of both", PATIENCE)
            once_each(arrived, deadlines)
            [message] = also_arrived  # and no canary of the other one
            message.keeps_the_contract(subject="second.0.both")
            assert await second.stop() == 0


@pytest.mark.unmeasured
async def test_at_the_outbox_limit_the_sweep_pauses_until_the_broker_is_back(redis_kind: type[RedisServer]) -> None:
    with world(redis_kind, DEBUG, outbox_limit="10") as own:
        await own.bridge.ready()
        async with user_of(own.redis) as redis:
            await lazily(redis)  # so that nobody but the sweep can expire a key
            own.nats.kill()
            first = await set_many(redis, "first", 10, 200)
            await reach(redis, 10)
            await not_ready(own.bridge, "outbox", "outbox at its limit of 10")
            rest = await set_many(redis, "rest", 40, 1000)  # the bridge has to hear of them before, or it touches them

            async def has_touched_since() -> bool:
                """A touch extends the lease to five seconds from then on."""
                until = int(await run(redis, "HGET", LEASE, "until"))
                return until - 5000 > max(rest.values()) + 100

            await wait_until(has_touched_since)
            assert await depth(redis) == 10
            assert await redis.zcard(LEDGER) == 40
            own.nats.start()
            await own.bridge.ready()
            async with arrivals(own.nats, START) as arrived:
                await all_of(arrived, [*first, *rest])
                await everything_due(redis, arrived)
            once_each([message for message in arrived if message.key in {*first, *rest}], first | rest)
            await reach(redis, 0)
            assert await reasons(own.bridge) == {}


@pytest.mark.unmeasured
async def test_expirations_that_redis_announces_by_itself_are_taken_beyond_the_outbox_limit(
    redis_kind: type[RedisServer],
) -> None:
    with world(redis_kind, DEBUG, outbox_limit="5") as own:
        await own.bridge.ready()
        async with user_of(own.redis) as redis:
            await lazily(redis)
            own.nats.pause()
            deadlines = await set_many(redis, "beyond", 30, 100)

            async def are_gone() -> bool:
                return not await redis.exists(*deadlines)  # which makes Redis expire them, and say so

            await wait_until(are_gone)
            await reach(redis, 30)
            own.nats.resume()
            async with arrivals(own.nats, START) as arrived:
                await all_of(arrived, deadlines)
                await everything_due(redis, arrived)
    assert {key: len(found) for key, found in told(arrived, deadlines).items()} == dict.fromkeys(deadlines, 1)


async def test_a_unix_socket_serves_as_well(redis_kind: type[RedisServer], nats_server: NatsServer) -> None:
    redis_server = redis_kind()
    path = redis_server.directory / "redis.sock"
    redis_server.config["unixsocket"] = str(path)
    with redis_server:
        async with (
            Bridge(settings_for(redis_server, nats_server, redis_url=f"unix://{path}?db=3")) as bridge,
            user_of(redis_server, 3) as redis,
        ):
            await bridge.ready()
            async with arrivals(nats_server) as arrived:
                deadlines = {b"unix:1": await set_known(redis, b"unix:1", 300, "{expiry-bridge:3:0}:deadlines")}
                await all_of(arrived, deadlines)
            assert told(arrived, deadlines) == {b"unix:1": [deadlines[b"unix:1"]]}
            arrived[0].keeps_the_contract(db=3)
            # All of its connections, the one for notifications, too, are on the socket.
            addresses = [line["addr"] for line in await redis.client_list() if line["name"] == "expiry-bridge"]
            assert len(addresses) >= 2
            assert all(str(path) in address for address in addresses)
            assert await bridge.stop() == 0
