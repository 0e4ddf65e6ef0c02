"""`expiry-bridge status`: what it says is what is in Redis and what the bridge tells, without user keys."""

import asyncio
import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from redis import Redis

from bridge import __version__
from bridge.cli.main import main
from bridge.commands.embedded import free_port
from bridge.redis.admin.ledger_state import LOOKED_AT
from bridge.redis.protocol.own_keys import Names
from bridge.telemetry import logs
from tests.support.redis.commands import SET_TOGETHER, run, user_of
from tests.support.servers import Bridge, NatsServer, Redis8Server, RedisServer, ValkeyServer, require, wait_until

NAMES = Names("expiry-bridge", 0)
KEY = "share:of-a-person"

Status = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def no_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command runs in this process, whose logging is pytest's."""
    monkeypatch.setattr(logs, "configure", lambda *_: None)


@pytest.fixture
def status(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Status:
    """What `status --json` prints of the server."""
    monkeypatch.setenv("BRIDGE_REDIS_URL", redis_server.url)
    monkeypatch.setenv("BRIDGE_HTTP_PORT", "0")  # whatever listens on the default is none of the tests'
    monkeypatch.setenv("BRIDGE_NATS_URL", f"nats://127.0.0.1:{free_port()}")

    def run(*flags: str) -> dict[str, Any]:
        assert main(["status", "--json", *flags]) == 0
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    return run


@pytest.fixture
def told(status: Status, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `status` prints for people."""

    def run(*flags: str) -> str:
        assert main(["status", *flags]) == 0
        return capsys.readouterr().out

    return run


def waits(user: Redis, count: int) -> bool:
    """Whether so many expirations are in the outbox."""
    return bool(user.hget(NAMES.lease, "depth") == b"%d" % count)


def waiting_expirations(redis_server: RedisServer, count: int) -> None:
    """A bridge without a broker claims so many expirations, and is killed."""
    nowhere = {"BRIDGE_REDIS_URL": redis_server.url, "BRIDGE_NATS_URL": f"nats://127.0.0.1:{free_port()}"}

    async def work() -> None:
        async with Bridge(nowhere) as bridge:
            with Redis(port=redis_server.port) as user:
                await wait_until(lambda: user.pubsub_numsub("__keyevent@0__:expired")[0][1])
                for number in range(count):  # one after the other, so that their order is known
                    user.eval(SET_TOGETHER, 1, NAMES.deadlines, 20, 1, f"{KEY}:{number}")
                    await wait_until(partial(waits, user, number + 1), bridge.log)
            bridge.kill()

    asyncio.run(work())


def test_a_redis_without_a_bridge_is_shown_as_such(status: Status, told: Callable[..., str]) -> None:
    found = status()

    assert found["ledger"] == {"keys": 0, "next_deadline_ms": None}
    assert found["outbox"] == {"entries": 0, "expirations": None, "oldest_ms": None}
    assert found["lease"] is None
    assert found["dead_letters"] == 0
    assert "no bridge has run here" in told()


def test_a_working_bridge_is_shown_with_its_ledger_and_its_lease(
    redis_server: RedisServer, nats_server: NatsServer, status: Status, told: Callable[..., str]
) -> None:
    async def work() -> tuple[dict[str, Any], str, dict[str, Any]]:
        async with Bridge({"BRIDGE_REDIS_URL": redis_server.url, "BRIDGE_NATS_URL": nats_server.url}) as bridge:
            await bridge.ready()
            with Redis(port=redis_server.port) as user:
                user.set(KEY, "", ex=1000)
                deadline = user.pexpiretime(KEY)
                await wait_until(lambda: user.zcard(NAMES.deadlines) == 1)
                await wait_until(lambda: user.hget(NAMES.lease, "seen_ms"))
                # In threads: the command has an event loop of its own.
                found = await asyncio.to_thread(status)
                shown = await asyncio.to_thread(told)
            assert found["ledger"] == {"keys": 1, "next_deadline_ms": deadline}
            await bridge.stop()
        return found, shown, await asyncio.to_thread(status)

    working, shown, stopped = asyncio.run(work())

    lease = working["lease"]
    assert lease["held"] is True
    assert lease["until_ms"] > working["now_ms"] > lease["handled_up_to_ms"] > 0
    assert working["redis"]["role"] == "master"
    product, version = working["redis"]["product"], working["redis"]["version"]
    assert product == ("Valkey" if redis_server.distribution == "valkey" else "Redis")
    assert f"{product} {version}" in shown
    assert "1 key; the next deadline is in" in shown
    assert f"{lease['holder']}, for " in shown
    assert f"fence {lease['fence']}" in shown
    assert KEY not in shown
    assert KEY not in json.dumps(working)
    assert stopped["lease"] == {**stopped["lease"], "held": False, "holder": None, "fence": lease["fence"]}


def test_what_the_broker_does_not_take_is_shown_with_its_age(
    redis_server: RedisServer, status: Status, told: Callable[..., str]
) -> None:
    waiting_expirations(redis_server, 3)

    outbox = status()["outbox"]

    assert outbox["expirations"] == 3
    assert 1 <= outbox["entries"] <= 3 + 1  # and the start's gap
    assert 0 < outbox["oldest_ms"] <= status()["now_ms"]
    assert "3 expirations not acked by the broker; the oldest was claimed" in told()
    assert KEY not in told()


def test_dead_letters_a_lapsed_lease_and_an_overdue_deadline_are_shown(
    redis_server: RedisServer, status: Status, told: Callable[..., str]
) -> None:
    with Redis(port=redis_server.port) as user:
        seconds, micros = user.time()
        now_ms = seconds * 1000 + micros // 1000
        fields = {"holder": "gone-1", "until": now_ms - 60_000, "fence": 7, "seen_ms": now_ms - 61_000}
        user.hset(NAMES.lease, mapping=fields)
        user.zadd(NAMES.deadlines, {KEY: now_ms - 5_000})
        user.xadd(NAMES.dead, {"key": KEY, "reason": "too large"})

    found, shown = status(), told()

    assert found["dead_letters"] == 1
    assert found["lease"] == {
        "held": False,
        "holder": "gone-1",
        "until_ms": now_ms - 60_000,
        "fence": 7,
        "handled_up_to_ms": now_ms - 61_000,
        "settings": {},
    }
    assert "dead letters     1\n" in shown
    assert re.search(r"1 key; the next deadline passed \d+\.\d s ago", shown)
    assert "free: gone-1 let it lapse" in shown
    assert KEY not in shown


def test_the_next_and_the_last_expirations_are_shown_with_their_keys_only_when_asked(
    redis_server: RedisServer, status: Status, told: Callable[..., str]
) -> None:
    waiting_expirations(redis_server, 7)
    with Redis(port=redis_server.port) as user:
        now_ms = status()["now_ms"]
        user.zadd(NAMES.deadlines, {b"soon\xff": now_ms + 60_000, b"late\x1b[2J": now_ms + 600_000})

    silent, shown = status(), told()
    found, with_keys = status("--show-keys"), told("--show-keys")

    assert [event.keys() for event in silent["claimed_last"]] == [{"kind", "deadline_ms", "observed_ms", "via"}] * 5
    assert silent["next_to_expire"] == [{"deadline_ms": now_ms + 60_000}, {"deadline_ms": now_ms + 600_000}]
    assert KEY not in json.dumps(silent) + shown
    assert "soon" not in shown
    assert [event["key"] for event in found["claimed_last"]] == [f"{KEY}:{number}" for number in (6, 5, 4, 3, 2)]
    assert found["next_to_expire"][0]["key_base64"] == "c29vbv8="
    assert found["next_to_expire"][1]["key"] == "late\x1b[2J"
    assert re.search(r"next to expire +in \S+ s, in \d\S+ min\n", shown)
    assert silent["broker"]["readable"] is False
    assert silent["broker"]["reason"].startswith("NATS at 127.0.0.1:")
    assert re.search(r"published last +cannot be read: NATS at 127.0.0.1:\d+ cannot be reached: ", shown)
    assert re.search(r"next to expire +in \S+ s: soon\\xff\n +in \d\S+ min: late\\x1b\[2J\n", with_keys)
    assert re.search(rf"claimed last +\S+ m?s ago, by \w+, \S+ m?s after its deadline: {KEY}:6\n", with_keys)
    assert "\x1b" not in with_keys


def test_a_bridge_that_answers_is_shown_with_its_rates_lags_and_gaps(
    redis_server: RedisServer,
    nats_server: NatsServer,
    status: Status,
    told: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work() -> tuple[dict[str, Any], str, str]:
        async with Bridge({"BRIDGE_REDIS_URL": redis_server.url, "BRIDGE_NATS_URL": nats_server.url}) as bridge:
            monkeypatch.setenv("BRIDGE_HTTP_PORT", str(bridge.http_port))
            monkeypatch.setenv("BRIDGE_NATS_URL", nats_server.url)
            await bridge.ready()
            with Redis(port=redis_server.port) as user:
                user.eval(SET_TOGETHER, 1, NAMES.deadlines, 50, 1, *(f"{KEY}:{number}" for number in range(3)))

            async def is_published() -> bool:
                return "bridge_lag_seconds_count 3.0" in (await bridge.get("/metrics"))[1]

            await wait_until(is_published)
            with_keys = await asyncio.to_thread(told, "--show-keys")
            return await asyncio.to_thread(status), await asyncio.to_thread(told), with_keys

    found, shown, with_keys = asyncio.run(work())

    answer = found["bridge"]
    assert (answer["reachable"], answer["ready"], answer["published"]) == (True, True, 4)  # and the start's gap
    assert answer["version"] == __version__
    assert sum(answer["claimed"].values()) == 3
    assert answer["gaps"] == {"open": False, "total": 1, "missed": 0, "unmeasured": 1, "recovered": 0, "ambiguous": 0}
    assert 0 < answer["lag_seconds"]["p50"] <= answer["lag_seconds"]["p99"] < 60
    assert answer["per_second"]["published"] == pytest.approx(4 / answer["uptime_seconds"])
    assert answer["scan"]["progress"] == 1
    assert 0 <= answer["canary_age_seconds"] < 10
    assert re.search(r"published +4, \S+/s on average; 0 sent again, 0 in flight\n", shown)
    assert re.search(r"lag +p50 \S+ m?s, p90 \S+ m?s, p99 \S+ m?s, since the start\n", shown)
    assert re.search(r"bridge +ready; version ", shown)
    assert [event.keys() for event in found["broker"]["published_last"]] == [
        {"kind", "deadline_ms", "observed_ms", "via"}
    ] * 3
    assert len(re.findall(r"(?:published last)? +\S+ m?s ago, by \w+, \S+ m?s after its deadline\n", shown)) == 3
    assert KEY not in shown + json.dumps(found)
    assert all(f"deadline: {KEY}:{number}\n" in with_keys for number in range(3))
    assert re.search(r"gaps +1; missed 0 \(unknown of 1\), recovered 0, ambiguous 0\n", shown)


VALUE = "of-a-persons-cart"


@pytest.mark.parametrize("kind", [Redis8Server, ValkeyServer])
def test_values_and_fields_are_shown_by_their_numbers_alone(
    kind: type[RedisServer],
    nats_server: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    require(kind)

    def shown(*flags: str) -> str:
        assert main(["status", *flags]) == 0
        return capsys.readouterr().out

    async def work(server: RedisServer) -> None:
        opted = {"BRIDGE_VALUES": "share:*", "BRIDGE_VALUES_LEAD": "1000", "BRIDGE_VALUES_MAX_BYTES": "1000"}
        variables = {"BRIDGE_REDIS_URL": server.url, "BRIDGE_NATS_URL": nats_server.url, "BRIDGE_FIELDS": "session:*"}
        async with Bridge({**variables, **opted}) as bridge:
            for name, value in {**variables, **opted, "BRIDGE_HTTP_PORT": str(bridge.http_port)}.items():
                monkeypatch.setenv(name, value)
            await bridge.ready()
            with Redis(port=server.port) as user:
                user.set(KEY, VALUE, px=100_000)
                user.set(f"{KEY}:soon", VALUE, px=1500)
                user.set(f"{KEY}:large", 2 * 1000 * "x", px=1500)
                for number in range(3):
                    user.hset(f"session:{number}", mapping={"token": VALUE, "name": "n", "kept": ""})
                    user.execute_command("HPEXPIRE", f"session:{number}", 100_000, "FIELDS", 2, "token", "name")
                user.execute_command("HPEXPIRE", "session:0", 500, "FIELDS", 1, "name")

            async def all_is_told() -> bool:
                status = json.loads((await bridge.get("/status.json"))[1])
                if status["outbox"]["expirations"]:
                    return False  # it is settled a moment after its ack
                counts = (status["values"]["held"], sum(status["values"]["published"].values()))
                return (*counts, status["fields"]["hashes"], sum(status["fields"]["claimed"].values())) == (1, 2, 3, 1)

            await wait_until(all_is_told, bridge.log)
            page = json.loads((await bridge.get("/status.json"))[1])
            found, text = json.loads(await asyncio.to_thread(shown, "--json")), await asyncio.to_thread(shown)
            with_keys = json.loads(await asyncio.to_thread(shown, "--json", "--show-keys"))
            log = bridge.log()

        values = found["values"]
        assert (values["held"], values["outbox_bytes"]) == (1, 0)
        assert len(VALUE) < values["held_bytes"] == page["values"]["bytes"] < len(VALUE) + 100
        assert (page["values"]["wanted"], page["values"]["limit_bytes"], page["values"]["doubt"]) == (True, 2**28, None)
        assert page["values"]["published"] == found["bridge"]["values"]
        assert (found["bridge"]["values"]["exact"], found["bridge"]["values"]["too_large"]) == (1, 1)
        fields = found["fields"]
        assert (fields["hashes"], fields["recorded"], fields["estimated"], fields["excluded"]) == (3, 5, False, 0)
        assert fields["next_deadline_ms"] == page["fields"]["next_deadline_ms"] > found["now_ms"]
        assert found["bridge"]["fields"]["claimed"] == page["fields"]["claimed"]
        assert page["fields"]["missed"] is found["bridge"]["fields"]["missed"] is None
        assert re.search(
            r"values +1 of keys that are about to expire; \d+ bytes with those in the outbox, of 256 MiB", text
        )
        assert re.search(r"values delivered +1 exact, 0 not exact; none: 1 too large\n", text)
        assert re.search(r"field ledger +5 fields of 3 hashes; the next deadline of a field: in ", text)
        assert re.search(r"fields claimed +\d by notification, \d by sweep; ambiguous: none; missed: not known\n", text)
        assert all(secret not in text + json.dumps([found, page]) for secret in (KEY, VALUE, "session:0", "token"))
        assert VALUE not in json.dumps(with_keys) + log
        assert "a field, by " in text
        assert {"kind": "field", "key": "session:0", "field": "name"}.items() <= with_keys["broker"]["published_last"][
            -1
        ].items()

    with kind() as server:
        asyncio.run(work(server))


@pytest.mark.both_kinds
def test_why_values_are_missing_or_not_proven_is_said_until_it_is_mended(
    redis_server: RedisServer,
    nats_server: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    variables = {"BRIDGE_REDIS_URL": redis_server.url, "BRIDGE_NATS_URL": nats_server.url, "BRIDGE_VALUES": "*"}
    variables |= {"BRIDGE_REDIS_USERNAME": "narrow", "BRIDGE_REDIS_PASSWORD": "secret", "BRIDGE_VALUES_LEAD": "10"}

    def shown() -> tuple[dict[str, Any], str]:
        assert main(["status", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["bridge"]
        assert main(["status"]) == 0
        return found, capsys.readouterr().out

    async def work(user: Redis) -> tuple[tuple[dict[str, Any], str], tuple[dict[str, Any], str]]:
        async with Bridge(variables) as bridge:
            for name, value in {**variables, "BRIDGE_HTTP_PORT": str(bridge.http_port)}.items():
                monkeypatch.setenv(name, value)
            await bridge.ready()

            async def delivered(outcome: str, count: int) -> None:
                async def is_delivered() -> bool:
                    values = json.loads((await bridge.get("/status.json"))[1])["values"]
                    return bool(values["published"][outcome] == count)

                user.set(KEY, VALUE, px=1500)
                await wait_until(is_delivered, bridge.log)

            await delivered("not_permitted", 1)
            wrong = await asyncio.to_thread(shown)
            async with user_of(redis_server) as admin:
                await run(admin, "ACL", "SETUSER", "narrow", "+strlen", "+client|tracking")
                await admin.client_kill_filter(_type="pubsub")  # the next session tries at once
            await bridge.ready()
            await delivered("exact", 1)
            return wrong, await asyncio.to_thread(shown)

    with Redis(port=redis_server.port) as user:
        rights = ("+@all", "-client|tracking", "-strlen")
        user.execute_command("ACL", "SETUSER", "narrow", "on", ">secret", "~*", "&*", *rights)
        (wrong, text), (right, later) = asyncio.run(work(user))
    assert "client|tracking" in wrong["values_doubt"]
    assert re.search(r"values doubted +Redis at \S+ does not permit .*client\|tracking", text)
    assert "none: 1 not permitted" in text
    assert right["values_doubt"] is None
    assert "values doubted" not in later


def test_fields_of_many_hashes_are_counted_in_a_part_of_them(
    redis_server: RedisServer, status: Status, told: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_FIELDS", "*")
    with Redis(port=redis_server.port) as user, user.pipeline() as pipeline:
        for number in range(3 * LOOKED_AT):
            pipeline.zadd(NAMES.fields, {f"h:{number}": 1 + number})
            pipeline.zadd(NAMES.field_prefix + f"h:{number}".encode(), {"a": 1, "b": 1})
        pipeline.zadd(NAMES.fields, {"large": 0, "planted": "inf"})
        pipeline.execute()
    fields = status()["fields"]
    assert (fields["hashes"], fields["excluded"], fields["estimated"]) == (3 * LOOKED_AT + 1, 1, True)
    assert fields["recorded"] == pytest.approx(6 * LOOKED_AT, rel=0.01)
    assert re.search(
        r"field ledger +about [56],\d{3} fields of 3,001 hashes; .*; 1 hash left out: too many fields\n", told()
    )


def test_where_no_bridge_answers_it_is_said_that_it_cannot_be_reached_from_here(
    status: Status, told: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("BRIDGE_HTTP_PORT", str(port))

    reason = f"http://127.0.0.1:{port} cannot be reached from here"
    assert status()["bridge"] == {"reachable": False, "reason": reason}
    assert f"no rates, lags or gaps: {reason}\n" in told()


def test_status_changes_nothing(redis_server: RedisServer, status: Status) -> None:
    status()

    with Redis(port=redis_server.port) as user:
        assert user.dbsize() == 0
        assert user.config_get("notify-keyspace-events") == {"notify-keyspace-events": ""}


async def test_a_redis_that_cannot_be_reached_is_one_clear_line_and_exit_1() -> None:
    port = free_port()
    with Bridge({"BRIDGE_REDIS_URL": f"redis://:s3cret@127.0.0.1:{port}"}, "status") as command:
        assert await command.exited() == 1
        [line] = command.log().splitlines()

    assert f"Redis at 127.0.0.1:{port}" in line
    assert "s3cret" not in line
