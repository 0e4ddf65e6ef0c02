"""`expiry-bridge check`, NATS's side: what passes, and what a test publish does. Faults are in `test_planted.py`."""

import asyncio

import orjson
import pytest
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RawStreamMsg
from nats.js.errors import NotFoundError
from redis import Redis

from tests.integration.doctor import examine, levels
from tests.integration.ground import Account, Ground
from tests.integration.mends import nats_cli
from tests.support.servers import Bridge, RedisServer, wait_until


def stored(account: Account, stream: str = "EXPIRY") -> list[RawStreamMsg]:
    """All messages of the stream. Raises NotFoundError: there is no stream."""
    found: list[RawStreamMsg] = []

    async def read(jetstream: JetStreamContext) -> None:
        count = (await jetstream.stream_info(stream)).state.messages
        found.extend([await jetstream.get_msg(stream, number + 1) for number in range(count)])

    account.work(read)
    return found


def test_a_sound_stream_passes(ground: Ground) -> None:
    account = ground.account("{ max_file: 100000000 }")
    account.stream(max_msg_size=100_000, max_bytes=50_000_000)

    rows = examine(0, **account.settings)

    assert levels(rows) == {}
    found = {name.removeprefix("NATS/"): row["found"] for name, row in rows.items() if row["area"] == "NATS"}
    assert found.pop("connection").startswith("127.0.0.1:")
    assert found == {
        "JetStream": "enabled; it holds 0 of the 100000000 bytes that this account may store",
        "permissions": f"user of-{account.name} may publish to expired.0.*",
        "stream": "EXPIRY exists, in files",
        "subjects": "EXPIRY binds expired.>",
        "duplicate window": "600 s",
        "message size": "up to 100000 bytes",
        "replicas": "1: the server stands alone, and what is acked is kept by it only",
        "limits": "50000000 bytes, 168 h",
        "provision": "as the settings ask for",
    }


def test_a_sound_stream_that_takes_one_message_of_a_subject_passes(ground: Ground) -> None:
    account = ground.account("{ max_file: 100000000 }")
    account.settings["nats_deduplication"] = "subject"
    one_each = {"max_msgs_per_subject": 1, "discard": DiscardPolicy.NEW, "discard_new_per_subject": True}
    account.stream(**one_each, max_bytes=50_000_000, duplicate_window=1.0)

    rows = examine(0, "--publish", **account.settings)

    assert levels(rows) == {}
    found = {name.removeprefix("NATS/"): row["found"] for name, row in rows.items()}
    assert "duplicate window" not in found
    assert found["one message per subject"].startswith("EXPIRY takes one message of a subject")
    assert found["limits"] == "50000000 bytes, 168 h; a full one refuses what is new, which waits in Redis"
    (message,) = stored(account)
    assert message.headers is not None
    assert message.subject == f"expired.0._check.{message.headers['Nats-Msg-Id']}"


def test_a_missing_stream_is_created_by_the_bridge_and_not_by_check(ground: Ground) -> None:
    account = ground.account()
    del account.settings["nats_retention_hours"]

    rows = examine(0, "--publish", **account.settings)

    assert "the bridge creates it" in rows["NATS/stream"]["found"]
    assert levels(rows) == {"NATS/stream": "warn", "NATS/test publish": "warn"}
    assert rows["NATS/stream"]["remedy"].startswith("set BRIDGE_NATS_RETENTION_HOURS or BRIDGE_NATS_MAX_BYTES")
    assert rows["NATS/test publish"]["found"] == "not tried: EXPIRY does not exist"
    with pytest.raises(NotFoundError):
        stored(account)


@pytest.mark.parametrize("flags", [(), ("--publish",)])
def test_a_user_that_may_do_nothing_but_publish_is_told_of_only_by_trying(
    ground: Ground, flags: tuple[str, ...]
) -> None:
    account = ground.account()
    account.stream()
    account.server.set(account.name, "enabled", '{ publish: "expired.>", subscribe: "_INBOX.>" }')
    account.settings["nats_provision"] = "false"

    rows = examine(0, *flags, **account.settings)

    assert levels(rows) == {"NATS/JetStream": "warn"}
    assert rows["NATS/JetStream"]["found"] == "cannot be read: the user may not ask about streams"
    assert ("NATS/test publish" in rows) is bool(flags)
    account.server.set(account.name, "enabled", "")
    assert len(stored(account)) == len(flags)


def test_a_user_that_may_not_look_up_messages_cannot_have_each_stored_once(ground: Ground) -> None:
    account = ground.account()
    account.settings["nats_deduplication"] = "subject"
    account.stream(max_msgs_per_subject=1, discard=DiscardPolicy.NEW, discard_new_per_subject=True)
    allowed = ["expired.0.*.*", "$JS.API.STREAM.INFO.EXPIRY", "$JS.API.INFO", "$SYS.REQ.USER.INFO"]
    account.server.set(account.name, "enabled", f"{{ publish: {orjson.dumps(allowed).decode()} }}")

    rows = examine(1, **account.settings)

    assert levels(rows) == {"NATS/one message per subject": "fail"}
    assert rows["NATS/one message per subject"]["found"].startswith("the user may not look up messages")
    account.allow(rows["NATS/one message per subject"]["remedy"])
    assert levels(examine(0, **account.settings)) == {}


def test_rights_that_nobody_tells_of_can_be_tried(ground: Ground) -> None:
    account = ground.account(permissions='{ publish: ["expired.0.*", "$JS.API.>"] }')
    account.stream()

    untried = examine(0, **account.settings)
    tried = examine(0, "--publish", **account.settings)

    assert levels(untried) == {"NATS/permissions": "warn"}
    assert untried["NATS/permissions"]["remedy"] == "try it: expiry-bridge check --publish"
    assert levels(tried) == {}


def test_a_test_publish_is_one_message_that_nobody_can_take_for_an_expiration(ground: Ground) -> None:
    account = ground.account()
    account.stream()

    examine(0, **account.settings)
    assert stored(account) == []
    row = examine(0, "--publish", **account.settings)["NATS/test publish"]

    (message,) = stored(account)
    event = orjson.loads(message.data or b"")
    assert row["found"] == "expired.0._check is message 1 of EXPIRY; its type is redis.expiry.check"
    assert message.subject == "expired.0._check"
    assert message.headers is not None
    assert message.headers["Nats-Msg-Id"] == event["id"]
    assert event["type"] == "redis.expiry.check"
    assert event["data"].keys() == {"db", "published_ms"}


def test_a_test_publish_goes_where_gap_records_go_if_the_subject_names_no_key(ground: Ground) -> None:
    account = ground.account()
    account.stream(subjects=["gone.*", "gone.*._gap"])

    rows = examine(0, "--publish", **account.settings, nats_subject="gone.{db}")

    assert levels(rows) == {}
    assert [message.subject for message in stored(account)] == ["gone.0._gap"]


@pytest.mark.parametrize("deduplication", ["window", "subject"])
async def test_a_user_with_nothing_but_the_permissions_shown_can_run_the_bridge(
    ground: Ground, one_redis: RedisServer, deduplication: str
) -> None:
    account = await asyncio.to_thread(ground.account, permissions='{ publish: { deny: ">" } }')
    account.settings["nats_deduplication"] = deduplication
    account.settings["redis_url"] = one_redis.url
    rows = await asyncio.to_thread(lambda: examine(1, **account.settings))
    await asyncio.to_thread(account.allow, rows["NATS/JetStream"]["remedy"])

    async with Bridge({f"BRIDGE_{name.upper()}": value for name, value in account.settings.items()}) as bridge:
        await bridge.ready()
        with Redis(port=one_redis.port) as writer:
            writer.set("share:1", "", px=50)
        await wait_until(lambda: published(bridge, 2), bridge.log)  # and the start's gap


async def published(bridge: Bridge, count: int) -> bool:
    return f"bridge_published_messages_total {count}.0" in (await bridge.get("/metrics"))[1]


def test_a_cluster_in_which_the_bridge_would_make_a_stream_with_one_replica_is_warned_of(ground: Ground) -> None:
    settings = ground.nats_cluster()
    settings["nats_replicas"] = "1"

    rows = examine(0, **settings)

    assert levels(rows) == {"NATS/stream": "warn"}
    assert "with one replica" in rows["NATS/stream"]["found"]
    nats_cli(servers=settings["nats_url"])(rows["NATS/stream"]["remedy"])
    del settings["nats_replicas"]
    assert levels(examine(0, **settings)).get("NATS/stream") is None


def test_standard_output_needs_nothing_and_nothing_is_published_there(redis_url: str) -> None:
    assert levels(examine(0, "--publish", redis_url=redis_url, sink="stdout")) == {}
