"""`expiry-bridge dead`: nothing leaves the dead letters but what the broker has acked, or what somebody drops."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from bridge.cli.main import main
from bridge.commands.embedded import free_port
from bridge.contracts import DeadLetter, Entry, Settlement
from bridge.expiration import Expiration, GapRecord, Identity, Via
from bridge.limits import LedgerLimits
from bridge.redis.admin.dead_letters import DeadLetters, Retrial
from bridge.redis.ledger.outbox import Outbox
from bridge.redis.ledger.scripts import Ledger
from bridge.redis.protocol.own_keys import Names
from bridge.redis.wire.commands import Commands
from bridge.redis.wire.endpoint import Endpoint
from bridge.settings import Settings
from bridge.telemetry import logs
from bridge.telemetry.events import Telemetry
from tests.support.brokers.kafka import KafkaServer
from tests.support.brokers.kafka_rig import KafkaRig
from tests.support.brokers.redis_rig import RedisRig
from tests.support.brokers.rigs import JetStreamRig
from tests.support.proxy import TO_SERVER, Action, Protocol, Proxy, command
from tests.support.redis.commands import user_of
from tests.support.servers import Bridge, RedisServer, wait_until

NAMES = Names("expiry-bridge", 0)
KEY = b"share:of-a-person"
ESCAPING = b"share:\x1b[2J\n\xff"
REASON = "1500 bytes are more than the broker takes"
DEADLINE_MS = 1_795_346_562_164
UNKNOWN = "0" * 32

Run = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `expiry-bridge dead …` with BRIDGE_* variables; its exit status, standard output and standard error."""
    # The command runs in this process, whose logging is pytest's.
    monkeypatch.setattr(
        logs, "configure", lambda *_: structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    )

    async def run(*arguments: str, **variables: str) -> tuple[int, str, str]:
        for name, value in variables.items():
            monkeypatch.setenv(f"BRIDGE_{name.upper()}", value)
        status = await asyncio.to_thread(main, ["dead", *arguments])  # it has an event loop of its own
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


@pytest.fixture
async def user(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Redis]:
    """A client of the Redis that the command is told of."""
    monkeypatch.setenv("BRIDGE_REDIS_URL", redis_server.url)
    async with user_of(redis_server) as client:
        yield client


def letter(key: bytes, *, deadline_ms: int | None = DEADLINE_MS, reason: str = REASON) -> DeadLetter:
    identity = Identity("/redis", 0)
    id_ = identity.of_entry(key, b"1-1", 0) if deadline_ms is None else identity.of_deadline(key, deadline_ms)
    return DeadLetter(Expiration(id_, key, deadline_ms, DEADLINE_MS + 2, Via.SWEEP), reason)


async def plant(server: RedisServer, letters: Sequence[DeadLetter]) -> list[str]:
    """Put dead letters there as delivery does; their ids."""
    endpoint = Endpoint.of(Settings.model_validate({"redis_url": server.url}))
    with closing(Commands(endpoint)) as commands:
        async with endpoint.client() as client:
            ledger = Ledger(commands, NAMES, LedgerLimits())
            outbox = Outbox(ledger, Identity("/redis", 0), 1_000_000, LedgerLimits(), Telemetry().shard())
            for number, dead_letter in enumerate(letters, start=1):
                await client.xadd(NAMES.outbox, {"claims": "", "at": 1}, id=f"1-{number}")
                entry = Entry(b"1-%d" % number, [dead_letter.event])
                await outbox.settle([Settlement.of(entry, [dead_letter])])
    return [dead_letter.event.id for dead_letter in letters]


def variables(settings: Mapping[str, Any], sink: str) -> dict[str, str]:
    """The settings of a rig as variables."""
    texts = {name: ",".join(value) if isinstance(value, list) else str(value) for name, value in settings.items()}
    return {"sink": sink, **texts}


# Looking at them.


async def test_list_shows_ids_and_reasons_and_no_key_unless_asked(
    redis_server: RedisServer, user: Redis, dead: Run
) -> None:
    first, second = await plant(redis_server, [letter(KEY), letter(ESCAPING, deadline_ms=None, reason="no\x1b[2J!")])

    status, shown, _ = await dead("list")
    head, *lines = shown.splitlines()
    assert status == 0
    assert head.split() == ["id", "refused", "at", "(UTC)", "reason"]
    assert [line.split()[0] for line in lines] == [first, second]
    assert lines[0].endswith(REASON)
    assert lines[1].endswith("no\\x1b[2J!")
    assert KEY.decode() not in shown

    _, shown, _ = await dead("list", "--show-keys")
    assert KEY.decode() in shown
    assert "share:\\x1b[2J\\n\\xff" in shown
    assert "\x1b" not in shown


async def test_list_for_programs(redis_server: RedisServer, user: Redis, dead: Run) -> None:
    ids = await plant(redis_server, [letter(KEY), letter(ESCAPING, deadline_ms=None)])

    found = json.loads((await dead("list", "--json"))[1])
    known, unknown = found["dead_letters"]
    assert found["total"] == 2
    assert known == {
        "id": ids[0],
        "refused_at_ms": known["refused_at_ms"],
        "reason": REASON,
        "deadline_ms": DEADLINE_MS,
        "observed_ms": DEADLINE_MS + 2,
        "via": "sweep",
    }
    assert unknown["deadline_ms"] is None

    found = json.loads((await dead("list", "--json", "--show-keys", "--limit", "1"))[1])
    assert [one["key"] for one in found["dead_letters"]] == [KEY.decode()]
    assert found["total"] == 2


async def test_list_says_how_many_it_does_not_show(redis_server: RedisServer, user: Redis, dead: Run) -> None:
    assert (await dead("list"))[1] == "There are no dead letters.\n"
    ids = await plant(redis_server, [letter(b"%d" % number) for number in range(5)])

    _, shown, _ = await dead("list", "--limit", "3")
    assert [line.split()[0] for line in shown.splitlines()[1:4]] == ids[:3]
    assert "The oldest 3 of 5" in shown


async def test_show_prints_the_key_and_the_event_that_the_broker_refused(
    redis_server: RedisServer, user: Redis, dead: Run
) -> None:
    _, wanted = await plant(redis_server, [letter(b"another"), letter(KEY)])

    status, shown, _ = await dead("show", wanted)
    assert status == 0
    for text in (wanted, REASON, KEY.decode(), "2026-11-22 11:22:42.164 UTC", "sweep"):
        assert text in shown

    one = json.loads((await dead("show", wanted, "--json"))[1])
    assert one["key"] == KEY.decode()
    assert one["event"]["id"] == wanted
    assert one["event"]["type"] == "redis.key.expired"
    assert one["event"]["data"]["deadline_ms"] == DEADLINE_MS


async def test_show_a_key_that_is_not_utf_8(redis_server: RedisServer, user: Redis, dead: Run) -> None:
    (wanted,) = await plant(redis_server, [letter(ESCAPING)])

    _, shown, _ = await dead("show", wanted)
    assert "\x1b" not in shown
    assert json.loads((await dead("show", wanted, "--json"))[1])["key_base64"] == "c2hhcmU6G1sySgr/"


# Dropping them.


async def test_drop_removes_those_and_no_others(redis_server: RedisServer, user: Redis, dead: Run) -> None:
    ids = await plant(redis_server, [letter(b"%d" % number) for number in range(4)])

    status, shown, _ = await dead("drop", ids[1], ids[2], ids[1])

    assert status == 0
    assert shown == "Dropped 2 dead letters; 2 left.\n"
    left = json.loads((await dead("list", "--json"))[1])["dead_letters"]
    assert [one["id"] for one in left] == [ids[0], ids[3]]


@pytest.mark.parametrize("action", ["show", "retry", "drop"])
async def test_an_id_that_does_not_exist_is_one_clear_line_and_nothing_is_done(
    redis_server: RedisServer, user: Redis, dead: Run, action: str
) -> None:
    (known,) = await plant(redis_server, [letter(KEY)])

    status, shown, said = await dead(action, UNKNOWN, *([known] if action != "show" else []))

    assert status == 1
    assert shown == ""
    assert said == (
        f"expiry-bridge: no dead letter has the id {UNKNOWN}: see `expiry-bridge dead list`; nothing was done\n"
    )
    assert await user.xlen(NAMES.dead) == 1


# Sending them again.


async def test_retry_publishes_under_the_same_ids_and_removes_what_is_acked(
    redis_server: RedisServer, user: Redis, dead: Run
) -> None:
    same_key = [letter(KEY, deadline_ms=DEADLINE_MS + number) for number in range(3)]
    ids = await plant(redis_server, [*same_key, *(letter(b"%d" % number) for number in range(1200))])
    async with JetStreamRig() as rig:
        chosen = variables(rig.settings, "jetstream")
        status, shown, _ = await dead("retry", ids[7], ids[5], **chosen)
        assert (status, shown) == (0, "Sent, acked and removed: 2 dead letters.\n")
        assert set(await rig.stored()) == {ids[5], ids[7]}

        status, shown, _ = await dead("retry", "--all", **chosen)
        assert (status, shown) == (0, f"Sent, acked and removed: {len(ids) - 2} dead letters.\n")
        stored = await rig.stored()
    assert sorted(stored) == sorted(ids)
    assert [id_ for id_ in stored if id_ in ids[:3]] == ids[:3]  # a key's events in their order
    assert await user.xlen(NAMES.dead) == 0
    assert (await dead("retry", "--all"))[1] == "There are no dead letters.\n"


@pytest.mark.parametrize("deduplication", ["none", "transaction"])
async def test_retry_on_kafka(
    kafka_server: KafkaServer, redis_server: RedisServer, user: Redis, dead: Run, deduplication: str
) -> None:
    ids = await plant(redis_server, [letter(KEY), letter(b"x" * 2000), letter(b"small")])
    rig = KafkaRig(kafka_server, kafka_deduplication=deduplication)
    await rig.create(max_message_bytes="1500")
    chosen = variables(rig.settings, "kafka")

    status, shown, _ = await dead("retry", "--all", **chosen)
    assert status == 1
    assert "Sent, acked and removed: 2 dead letters." in shown
    assert "Refused again, and kept: 1 dead letter." in shown
    assert sorted(await rig.stored()) == sorted([ids[0], ids[2]])

    await rig.configure(max_message_bytes="100000")
    assert (await dead("retry", "--all", **chosen))[0] == 0
    assert sorted(await rig.stored()) == sorted(ids)
    assert await user.xlen(NAMES.dead) == 0


async def test_retry_into_a_redis_stream_in_any_order(redis_server: RedisServer, user: Redis, dead: Run) -> None:
    """Each has a place of its own: what is sent later is no repeat of what stands before it."""
    letters = [letter(b"share:%d" % number) for number in range(5)]
    ids_ = await plant(redis_server, letters)
    async with RedisRig() as rig:
        environ = variables(rig.settings, "redis")
        for chosen in (ids_[4:], ids_[:1], ids_[2:3]):
            status, _, _ = await dead("retry", *chosen, **environ)
            assert status == 0
        status, _, _ = await dead("retry", "--all", **environ)
        assert status == 0
        assert sorted(await rig.stored()) == sorted(ids_)
    assert await user.xlen(NAMES.dead) == 0


async def test_what_the_broker_refuses_once_more_stays(redis_server: RedisServer, user: Redis, dead: Run) -> None:
    large = [letter(b"x" * length) for length in (2000, 2001)]
    ids = await plant(redis_server, [letter(KEY), *large])
    async with JetStreamRig("max_payload: 1500") as rig:
        status, shown, _ = await dead("retry", "--all", **variables(rig.settings, "jetstream"))
        assert await rig.stored() == ids[:1]
    assert status == 1
    assert "Sent, acked and removed: 1 dead letter." in shown
    assert "Refused again, and kept: 2 dead letters." in shown
    assert "NATS server takes 1500" in shown
    left = json.loads((await dead("list", "--json"))[1])["dead_letters"]
    assert [one["id"] for one in left] == ids[1:]


async def test_a_broker_that_is_not_there_is_one_clear_line_and_nothing_is_lost(
    redis_server: RedisServer, user: Redis, dead: Run
) -> None:
    await plant(redis_server, [letter(KEY)])
    port = free_port()

    status, _, said = await dead("retry", "--all", nats_url=f"nats://127.0.0.1:{port}")

    assert status == 1
    assert f"127.0.0.1:{port}" in said
    assert len(said.splitlines()) == 1
    assert await user.xlen(NAMES.dead) == 1


async def test_killed_between_the_ack_and_the_removal_it_is_sent_once_more_and_stored_once(
    redis_server: RedisServer, user: Redis, dead: Run
) -> None:
    ids = await plant(redis_server, [letter(b"%d" % number) for number in range(3)])
    async with JetStreamRig() as rig, Proxy(redis_server.port, Protocol.RESP) as link:
        chosen = variables(rig.settings, "jetstream")
        removal = link.break_on(TO_SERVER, command(b"XDEL"), Action.HOLD)
        settings = {f"BRIDGE_{name.upper()}": value for name, value in chosen.items()}
        through_link = {**settings, "BRIDGE_REDIS_URL": f"redis://127.0.0.1:{link.port}/0"}
        with Bridge(through_link, "dead", "retry", "--all") as killed:
            await removal.reached()
            killed.kill()
        link.cut()
        assert sorted(await rig.stored()) == sorted(ids)
        assert await user.xlen(NAMES.dead) == 3

        status, shown, _ = await dead("retry", "--all", **chosen)
        assert (status, shown) == (0, "Sent, acked and removed: 3 dead letters.\n")
        assert sorted(await rig.stored()) == sorted(ids)
    assert await user.xlen(NAMES.dead) == 0


async def test_what_a_bridge_could_not_deliver_arrives_once_the_stream_takes_it(
    redis_server: RedisServer, user: Redis, dead: Run
) -> None:
    async with JetStreamRig() as rig:
        async with rig.client() as client:
            await client.jetstream().add_stream(name="EXPIRY", subjects=["expired.0.session", "expired.0._gap"])
        chosen = variables(rig.settings, "jetstream")
        settings = {f"BRIDGE_{name.upper()}": value for name, value in chosen.items()}
        async with Bridge({**settings, "BRIDGE_REDIS_URL": redis_server.url}) as bridge:
            await bridge.ready()
            await user.set(KEY, "", px=50)

            async def is_dead() -> bool:
                return await user.xlen(NAMES.dead) == 1

            await wait_until(is_dead, bridge.log)
            (one,) = json.loads((await dead("list", "--json"))[1])["dead_letters"]
            assert "does not bind the message's subject" in one["reason"]
            assert (await dead("retry", "--all", **chosen))[0] == 1
            async with rig.client() as client:
                await client.jetstream().update_stream(name="EXPIRY", subjects=["expired.>"])
            assert (await dead("retry", one["id"], **chosen))[0] == 0
            assert one["id"] in await rig.stored()
            assert await bridge.stop() == 0


async def test_a_value_is_kept_with_its_message_shown_only_when_asked_for_and_sent_again(
    redis_server: RedisServer, user: Redis, dead: Run
) -> None:
    async with JetStreamRig() as rig:
        async with rig.client() as client:
            await client.jetstream().add_stream(name="EXPIRY", subjects=["expired.0.session", "expired.0._gap"])
        chosen = variables(rig.settings, "jetstream") | {"values": "share:*", "values_lead": "60"}
        settings = {f"BRIDGE_{name.upper()}": value for name, value in chosen.items()}
        async with Bridge({**settings, "BRIDGE_REDIS_URL": redis_server.url}) as bridge:
            await bridge.ready()
            await user.hset(KEY.decode(), mapping={"owner": "somebody"})
            await user.pexpire(KEY, 1500)

            async def is_dead() -> bool:
                return await user.xlen(NAMES.dead) == 1

            await wait_until(is_dead, bridge.log)
            (one,) = json.loads((await dead("list", "--json", "--show-keys"))[1])["dead_letters"]
            hidden, shown = (await dead("show", one["id"]))[1], (await dead("show", one["id"], "--show-values"))[1]
            assert ("somebody" in hidden, "hash, " in hidden, "somebody" in shown) == (False, True, True)
            assert "somebody" not in json.dumps(one) + bridge.log()
            async with rig.client() as client:
                await client.jetstream().update_stream(name="EXPIRY", subjects=["expired.>"])
            assert (await dead("retry", one["id"], **chosen))[0] == 0
            async with rig.client() as client:
                stored = await client.jetstream().get_last_msg("EXPIRY", "expired.0.share")
            data = json.loads(stored.data or b"")["data"]
            assert (data["value"], data["value_exact"]) == ({"owner": "somebody"}, True)
            assert await bridge.stop() == 0


# What nobody expected.


async def test_what_somebody_else_wrote_there_is_shown_passed_over_and_can_be_dropped(
    redis_server: RedisServer, user: Redis, dead: Run
) -> None:
    (good,) = await plant(redis_server, [letter(KEY)])
    planted: Any = await user.xrange(NAMES.dead)
    fields: dict[bytes, bytes] = planted[0][1]
    strange: list[Any] = [
        {b"note": b"hello"},
        {**fields, b"id": b"\x1b[2J"},
        {**fields, b"deadline_ms": b"soon"},
        {**fields, b"via": b"rumour"},
        {**fields, b"reason": b"\xff"},
    ]
    written: list[Any] = [await user.xadd(NAMES.dead, one) for one in strange]
    entries = [entry.decode() for entry in written]

    found = json.loads((await dead("list", "--json"))[1])["dead_letters"]
    assert [one["id"] for one in found] == [good, *entries]
    assert {one["reason"] for one in found[1:]} == {"cannot be read: not written by a bridge"}
    assert (await dead("show", entries[0]))[0] == 0
    async with JetStreamRig() as rig:
        status, shown, _ = await dead("retry", "--all", **variables(rig.settings, "jetstream"))
        assert await rig.stored() == [good]
    assert status == 1
    assert "Not sent, because not written by a bridge: 5 dead letters." in shown
    assert (await dead("drop", *entries))[0] == 0
    assert await user.xlen(NAMES.dead) == 0


async def test_a_gap_record_can_be_dead_too(redis_server: RedisServer, user: Redis, dead: Run) -> None:
    record = GapRecord("a" * 32, "127.0.0.1:6379", 1_000, 2_000, "start", None, 1, 0)
    await plant(redis_server, [DeadLetter(record, REASON)])

    (found,) = json.loads((await dead("list", "--json"))[1])["dead_letters"]
    assert (found["id"], found["cause"], found["opened_ms"]) == (record.id, "start", 1_000)
    assert "redis.expiry.gap" in (await dead("show", record.id))[1]
    shown = json.loads((await dead("show", record.id, "--json"))[1])
    assert shown["event"]["data"]["missed"] is None
    async with JetStreamRig() as rig:
        assert (await dead("retry", "--all", **variables(rig.settings, "jetstream")))[0] == 0
        assert await rig.stored() == [record.id]
    assert await user.xlen(NAMES.dead) == 0


async def test_a_key_of_another_type_is_a_clear_error(redis_server: RedisServer, user: Redis, dead: Run) -> None:
    await user.set(NAMES.dead, "mine")

    status, _, said = await dead("list")

    assert status == 1
    assert "WRONGTYPE" in said
    assert len(said.splitlines()) == 1


async def test_one_that_was_set_aside_is_read_again_as_long_as_it_is_there(
    redis_server: RedisServer, user: Redis
) -> None:
    await plant(redis_server, [letter(b"a"), letter(b"b")])
    letters = DeadLetters(Settings.model_validate({"redis_url": redis_server.url}))
    try:
        await letters.locate()
        retrial = Retrial(letters, await letters.last())
        first, second = await retrial.read(10)
        assert await retrial.again(second.shard, second.id) == second
        await user.xdel(NAMES.dead, first.id)
        assert await retrial.again(first.shard, first.id) is None
    finally:
        await letters.close()
