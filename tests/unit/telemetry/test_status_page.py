"""The status page and `/status.json`: what they say, in which shape, and what keeps them to themselves."""

import json
import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import aiohttp
import pytest

from bridge.clock import SystemClock
from bridge.commands.embedded import free_port
from bridge.endings import Ending
from bridge.expiration import MISSING, Value
from bridge.settings import Settings
from bridge.telemetry.events import Telemetry
from bridge.telemetry.history import GAPS, TAKEOVERS
from bridge.telemetry.http import serve_http
from bridge.telemetry.page.document import Document
from bridge.telemetry.page.shape import VERSION
from bridge.telemetry.page.window import STEP_SECONDS, STEPS, Window
from bridge.telemetry.shard import ShardTelemetry
from tests.support.schemas import validator
from tests.support.status_schema import members, status_schema

PROMISED = {1: "9ac6c007a858e082"}
"""Of each version, a digest of its members and their types: whoever changes one needs a new version, whoever adds one
a new digest.
"""


class HandClock(SystemClock):
    """Goes on only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Bridge:
    """What a bridge tells of itself, without one."""

    def __init__(self, shards: int = 1, **settings: object) -> None:
        self.clock = HandClock()
        self.telemetry = Telemetry(self.clock, "me")
        self.shards = [self.telemetry.shard(number, shards) for number in range(shards)]
        self.window = Window(self.telemetry.metrics, self.clock)
        self._document = Document(self.telemetry, self.window, Settings.model_validate({"shards": shards, **settings}))

    def status(self) -> dict[str, Any]:
        """As a client reads it; it fits the schema."""
        found: dict[str, Any] = json.loads(json.dumps(self._document.status()))
        validator(status_schema()).validate(found)
        return found

    def work(self) -> None:
        """Hold all shards, and be ready."""
        self.telemetry.sink_connected()
        for shard in self.shards:
            shard.node_named("node:1")
            shard.lease_acquired(1, first=True)
            shard.lease_taken_over(None, 0, hot=False)
            shard.mark_returned("node:1")
            shard.canary_heard(0.003)


# The state in a sentence.


def test_at_the_start_it_is_not_ready_and_says_why() -> None:
    status = Bridge().status()
    assert (status["state"], status["summary"]) == ("unready", "Not ready: starting; starting.")
    assert status["reasons"] == {"broker": "starting", "subscription": "starting"}


def test_a_bridge_at_work_is_ready_and_has_its_figures() -> None:
    bridge = Bridge()
    bridge.work()
    bridge.shards[0].ledger_seen(12, 3)
    status = bridge.status()
    assert (status["state"], status["reasons"]) == ("ready", {})
    assert status["summary"].startswith("Ready: ")
    assert (status["ledger"], status["outbox"]["expirations"], status["broker"]["connected"]) == (12, 3, True)
    (shard,) = status["shards"]
    assert (shard["node"], shard["held"], shard["holder"], shard["subscribed"]) == ("node:1", True, "me", True)
    assert (shard["ledger"], shard["outbox"], shard["canary_lag_seconds"]) == (12, 3, 0.003)
    assert shard["standbys"] is None
    bridge.shards[0].standbys_counted(2)
    assert bridge.status()["shards"][0]["standbys"] == 2
    bridge.shards[0].lease_awaited("other")
    assert bridge.status()["shards"][0]["standbys"] is None


def test_a_gap_and_dead_letters_ask_for_attention() -> None:
    bridge = Bridge()
    bridge.work()
    bridge.shards[0].gap_opened("start", 1_000, 2_000)
    assert bridge.status()["summary"] == "Ready, but a gap is being reconciled."
    bridge.shards[0].dead_letters_seen(2)
    status = bridge.status()
    assert status["summary"] == "Ready, but a gap is being reconciled and there are 2 dead letters."
    assert (status["state"], status["dead_letters"]) == ("attention", 2)


def test_a_standby_says_that_it_stands_by_and_for_whom() -> None:
    bridge = Bridge()
    bridge.telemetry.sink_connected()
    bridge.shards[0].lease_awaited("other")
    bridge.shards[0].standby_listens(7, hot=True)
    status = bridge.status()
    assert (status["state"], status["shards"][0]["holder"]) == ("standby", "other")
    assert status["shards"][0]["standby_hints"] == 7
    assert status["shards"][0]["standby_hot"]
    assert status["summary"].startswith("Standing by: ")
    bridge.telemetry.sink_lost("no route")
    status = bridge.status()
    assert (status["state"], status["summary"]) == ("unready", "Standing by, but not fit to take over: no route.")


@pytest.mark.parametrize("lose", [ShardTelemetry.redis_unreached, ShardTelemetry.redis_refused])
def test_a_standby_that_does_not_reach_redis_does_not_seem_to_stand_by(
    lose: Callable[[ShardTelemetry, str, float], None],
) -> None:
    bridge = Bridge()
    bridge.telemetry.sink_connected()
    bridge.shards[0].lease_awaited("other")
    lose(bridge.shards[0], "no route", 1)
    status = bridge.status()
    assert (status["state"], status["summary"]) == ("unready", "Not ready: no route.")
    assert status["shards"][0]["holder"] is None


def test_one_shard_that_is_not_reached_makes_it_no_standby() -> None:
    bridge = Bridge(shards=2)
    bridge.telemetry.sink_connected()
    bridge.shards[0].lease_awaited("other")
    bridge.shards[1].redis_unreached("no route", 1)
    assert bridge.status()["state"] == "unready"
    bridge.shards[1].lease_awaited("other")
    assert bridge.status()["state"] == "standby"


def test_a_bridge_that_holds_some_shards_is_no_standby() -> None:
    bridge = Bridge(shards=2)
    bridge.telemetry.sink_connected()
    bridge.shards[0].lease_awaited("other")
    bridge.shards[1].lease_acquired(1, first=True)
    bridge.shards[1].mark_returned("node:1")
    bridge.shards[1].canary_heard(0)
    status = bridge.status()
    assert status["state"] == "ready"
    assert [shard["holder"] for shard in status["shards"]] == ["other", "me"]
    bridge.shards[1].gone()
    assert [shard["shard"] for shard in bridge.status()["shards"]] == [0]


def test_a_lease_that_is_lost_has_no_holder_that_is_known() -> None:
    bridge = Bridge()
    bridge.work()
    bridge.shards[0].epoch_ended("node:1", Ending.LEASE_LOST, "taken")
    (shard,) = bridge.status()["shards"]
    assert (shard["held"], shard["holder"], shard["subscribed"]) == (False, None, False)


# Values and fields.


def test_without_values_and_fields_nothing_is_told_of_them() -> None:
    bridge = Bridge()
    bridge.work()
    status = bridge.status()
    assert (status["values"]["wanted"], status["values"]["held"], status["values"]["bytes"]) == (False, 0, 0)
    assert set(status["values"]["published"].values()) == {0}
    assert (status["fields"]["bridged"], status["fields"]["hashes"]) == (False, 0)


def test_values_are_told_with_their_bound_and_with_what_became_of_them() -> None:
    bridge = Bridge(values="*", values_outbox_bytes="1000", values_max_bytes="100")
    bridge.work()
    shard = bridge.shards[0]
    shard.values_captured(5, full=False, provable=True)
    shard.values_seen(4, 640)
    kept = [Value("string", 1, exact=True), Value("string", 1), *(Value(missing=missing) for missing in MISSING)]
    bridge.telemetry.values_published([*kept, Value("string", 1, exact=True)])
    values = bridge.status()["values"]
    assert (values["wanted"], values["held"], values["bytes"], values["limit_bytes"]) == (True, 4, 640, 1000)
    assert (values["captured"], values["doubt"]) == (5, None)
    assert values["published"] == {"exact": 2, "not_exact": 1, **dict.fromkeys(MISSING, 1)}
    shard.outbox_settled(0, 0, 600)
    assert bridge.status()["values"]["bytes"] == 600
    shard.lease_awaited("other")
    shard.outbox_settled(0, 0, 500)  # the acks of what was under way
    values = bridge.status()["values"]
    assert (values["held"], values["bytes"], values["captured"]) == (0, 0, 5)


def test_the_bound_of_values_is_that_of_the_ledgers_that_are_held() -> None:
    bridge = Bridge(shards=4, values="*", values_outbox_bytes="1000", values_max_bytes="100")
    bridge.work()
    assert bridge.status()["values"]["limit_bytes"] == 1000
    bridge.shards[0].lease_awaited("other")
    assert bridge.status()["values"]["limit_bytes"] == 750


def test_why_values_are_doubted_is_told_until_one_can_be_proven() -> None:
    bridge = Bridge(values="*")
    bridge.work()
    shard = bridge.shards[0]
    shard.values_doubted("no tracking")
    shard.values_captured(1, full=False, provable=False)
    assert bridge.status()["values"]["doubt"] == "no tracking"
    shard.values_captured(1, full=False, provable=True)
    assert bridge.status()["values"]["doubt"] is None
    shard.values_doubted("no tracking")
    assert bridge.status()["values"]["doubt"] == "no tracking"
    shard.lease_awaited("other")
    assert bridge.status()["values"]["doubt"] is None


def test_fields_are_told_with_their_next_deadline_and_that_nobody_counts_those_missed() -> None:
    bridge = Bridge(shards=2, fields="session:*")
    bridge.work()
    for shard in bridge.shards:
        shard.fields_bridged()
    bridge.shards[0].field_ledger_seen(3, 1, 7000)
    bridge.shards[1].field_ledger_seen(2, 0, None)
    bridge.shards[1].fields_claimed(4, 1)
    bridge.shards[1].fields_ambiguous(1, 2, 3, 4)
    assert bridge.status()["fields"] == {
        "bridged": True,
        "hashes": 5,
        "excluded": 1,
        "next_deadline_ms": 7000,
        "claimed": {"notification": 4, "sweep": 1},
        "ambiguous": {"deleted": 1, "returned": 2, "elsewhere": 3, "too_large": 4},
        "missed": None,
    }
    bridge.shards[0].lease_awaited("other")
    fields = bridge.status()["fields"]
    assert (fields["hashes"], fields["excluded"], fields["next_deadline_ms"]) == (2, 0, None)


# What has happened.


def test_a_gap_is_told_from_its_opening_to_its_end() -> None:
    bridge = Bridge()
    bridge.work()
    bridge.shards[0].gap_opened("Redis closed the connection", 1_000, 2_500)
    (gap,) = bridge.status()["gaps"]["last"]
    assert (gap["open"], gap["closed_ms"], gap["missed"]) == (True, None, None)
    bridge.clock.now += 2
    bridge.shards[0].gap_closed(recovered=3, ambiguous=1, missed=4)
    gaps = bridge.status()["gaps"]
    assert gaps["last"] == [
        {
            "shard": 0,
            "cause": "Redis closed the connection",
            "opened_ms": 1_000,
            "until_ms": 2_500,
            "closed_ms": 4_500,
            "open": False,
            "recovered": 3,
            "ambiguous": 1,
            "missed": 4,
        }
    ]
    assert (gaps["total"], gaps["recovered"], gaps["ambiguous"], gaps["missed"]) == (1, 3, 1, 4)


def test_a_gap_that_an_epoch_left_open_is_covered_by_that_of_the_next() -> None:
    bridge = Bridge(shards=2)
    bridge.work()
    for shard in bridge.shards:
        shard.gap_opened("start", 1_000, 2_000)
    bridge.shards[0].gap_opened("connection lost", 1_000, 9_000)
    assert [(gap["shard"], gap["cause"]) for gap in bridge.status()["gaps"]["last"]] == [
        (1, "start"),
        (0, "connection lost"),
    ]
    bridge.shards[0].lease_awaited("other")
    assert [gap["open"] for gap in bridge.status()["gaps"]["last"]] == [True, False]


def test_takeovers_are_told_with_their_time() -> None:
    bridge = Bridge()
    bridge.shards[0].lease_taken_over(250, 3, hot=True)
    bridge.clock.now += 60
    status = bridge.status()
    assert (status["takeovers"]["hot"], status["takeovers"]["cold"]) == (1, 0)
    (one,) = status["takeovers"]["last"]
    assert (one["kind"], one["silent_ms"]) == ("hot", 250)
    assert 59_000 <= status["now_ms"] - one["at_ms"] <= 61_000


def test_a_takeover_whose_gap_was_filled_is_of_a_kind_of_its_own() -> None:
    bridge = Bridge()
    bridge.shards[0].lease_taken_over(None, 0, hot=False, filled=True)
    bridge.shards[0].lease_taken_over(None, 0, hot=False)
    takeovers = bridge.status()["takeovers"]
    assert (takeovers["hot"], takeovers["filled"], takeovers["cold"]) == (0, 1, 1)
    assert [one["kind"] for one in takeovers["last"]] == ["filled", "cold"]


def test_what_is_kept_is_bounded() -> None:
    bridge = Bridge()
    for number in range(3 * GAPS):
        bridge.shards[0].gap_opened(str(number), number, number)
        bridge.shards[0].gap_closed(0, 0, None)
        bridge.shards[0].lease_taken_over(None, 0, hot=True)
        bridge.window.sample()
    status = bridge.status()
    assert (len(status["gaps"]["last"]), len(status["takeovers"]["last"])) == (GAPS, TAKEOVERS)
    assert status["gaps"]["total"] == 3 * GAPS
    assert len(status["window"]["steps"]) == STEPS + 1
    bridge.shards[0].gap_closed(0, 0, None)  # of one that is no longer known


def test_what_is_stuck_is_told_until_it_no_longer_is() -> None:
    bridge = Bridge()
    bridge.telemetry.messages_stuck("expired.0.{prefix}", 2, "full", 10)
    bridge.telemetry.stuck_counted(2, 10, "messages are stuck: full")
    bridge.clock.now += 5
    assert bridge.status()["stuck"] == {
        "messages": 2,
        "channels": [{"on": "expired.0.{prefix}", "seconds": 15, "reason": "full"}],
    }
    bridge.telemetry.messages_unstuck("expired.0.{prefix}")
    bridge.telemetry.stuck_counted(0, 0, "")
    assert bridge.status()["stuck"] == {"messages": 0, "channels": []}


# The window.


def test_rate_and_lag_are_of_the_last_quarter_of_an_hour_alone() -> None:
    bridge = Bridge()
    bridge.telemetry.messages_published(1000, [50.0] * 1000)
    bridge.window.sample()
    assert bridge.status()["window"]["published"] == 1000
    for _ in range(STEPS):
        bridge.clock.now += STEP_SECONDS
        bridge.telemetry.messages_published(20, [0.004] * 20)
        bridge.window.sample()
    window = bridge.status()["window"]
    assert (window["seconds"], window["published"], window["per_second"]) == (900, 1800, 2)
    assert 0.0025 < window["p50"] < window["p99"] <= 0.005
    assert window["steps"][0] == {
        "seconds": 10,
        "published": 20,
        "p50": pytest.approx(window["p50"]),
        "p99": window["p99"],
    }


def test_without_a_message_there_is_no_lag() -> None:
    window = Bridge().status()["window"]
    assert (window["per_second"], window["p50"], window["p99"]) == (0, None, None)


async def test_the_counters_are_read_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.telemetry.page.window.STEP_SECONDS", 0.001)
    telemetry = Telemetry()
    window = Window(telemetry.metrics, SystemClock())
    clock = SystemClock()
    with window.sampling():
        while len(window.steps()) < 5:
            await clock.sleep(0.001)


# Its contract.


def test_a_version_keeps_its_members() -> None:
    digest = sha256(json.dumps(members(), sort_keys=True).encode()).hexdigest()[:16]
    assert digest == PROMISED[VERSION], "see PROMISED and VERSION"


async def test_the_page_and_its_figures_are_served_with_a_strict_policy() -> None:
    port = free_port()
    async with (
        serve_http(Settings(http_port=port, sink="kafka"), Telemetry(instance="me")),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        async with session.get("/") as answer:
            page, headers = await answer.text(), answer.headers
            assert answer.status == 200
            assert headers["Content-Type"] == "text/html; charset=utf-8"
        async with session.get("/status.json") as answer:
            status = await answer.json()
            assert answer.status == 200
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        async with session.post("/status.json") as answer:
            assert answer.status == 405
    validator(status_schema()).validate(status)
    assert (status["bridge"]["instance"], status["bridge"]["sink"]) == ("me", "kafka")
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    for kind in ("style", "script"):
        (text,) = re.findall(f"(?s)<{kind}>(.*?)</{kind}>", page)
        assert policy[f"{kind}-src"] == f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
    assert policy["default-src"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"


async def test_the_page_asks_nobody_but_its_own_server() -> None:
    port = free_port()
    async with (
        serve_http(Settings(http_port=port), Telemetry()),
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/") as answer,
    ):
        page = await answer.text()
    assert set(re.findall(r"[a-z]+://[^\s\"'<>`]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"<(?:form|button|input|iframe|object)\b|\son[a-z]+=|\sstyle=|innerHTML|eval\(", page)
