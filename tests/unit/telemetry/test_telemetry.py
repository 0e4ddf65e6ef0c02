"""What operators see, from outside: logs, health, metrics, and the port that serves them."""

import inspect
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from bridge import __version__
from bridge.clock import SystemClock
from bridge.endings import Ending
from bridge.errors import Refused
from bridge.limits import LedgerLimits
from bridge.settings import Settings
from bridge.telemetry import logs
from bridge.telemetry.backlog import BacklogTelemetry
from bridge.telemetry.events import Telemetry
from bridge.telemetry.fields import FieldTelemetry
from bridge.telemetry.health import Health
from bridge.telemetry.http import serve_http
from bridge.telemetry.reference import logged
from bridge.telemetry.shard import LEASE_SECONDS, ShardTelemetry
from bridge.telemetry.values import ValuesTelemetry


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class HandClock(SystemClock):
    """Goes on only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


OF_THE_HOLDER = ("ledger_entries", "outbox_expirations", "dead_letters", "gap_open")
"""What a shard's bridge tells while it holds the lease."""


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    """One sample, as a scrape would find it now; of a metric of shards, that of the first one by default."""
    find = telemetry.metrics.registry.get_sample_value
    found = find(name, {"shard": "0", **labels})
    return find(name, labels) if found is None else found


async def fetched(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


def test_the_bridge_is_ready_when_no_condition_is_unmet() -> None:
    health = Health()
    health.unmet("broker", "nobody there")
    health.unmet("subscription", "starting")
    health.met("broker")
    assert health.reasons == {"subscription": "starting"}

    health.met("subscription")

    assert health.reasons == {}


async def test_readiness_gives_its_reasons_and_then_200() -> None:
    telemetry, port = Telemetry(), free_port()
    shard = telemetry.shard()
    async with serve_http(Settings(http_port=port), telemetry):
        assert await fetched(port, "/livez") == (200, '{"status": "live"}')
        status, body = await fetched(port, "/readyz")
        assert status == 503
        assert json.loads(body)["reasons"] == {"broker": "starting", "subscription": "starting"}

        telemetry.sink_connected()
        shard.mark_returned("node:1")

        assert (await fetched(port, "/readyz"))[0] == 200


async def test_the_http_port_answers_questions_alone_and_has_nothing_else() -> None:
    port = free_port()
    async with serve_http(Settings(http_port=port), Telemetry()), aiohttp.ClientSession() as session:
        paths = ("/livez", "/readyz", "/metrics", "/", "/status.json")
        for path, wanted in {**dict.fromkeys(paths, 405), "/quit": 404}.items():
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                async with session.request(method, f"http://127.0.0.1:{port}{path}", data="x") as response:
                    assert response.status == wanted, (method, path)
        assert (await fetched(port, "/debug"))[0] == 404
        assert (await fetched(port, "/livez"))[0] == 200


async def test_metrics_are_prometheus_text_with_bounded_labels() -> None:
    telemetry, port = Telemetry(), free_port()
    telemetry.shard().batch_applied(2, 1, 0)
    async with serve_http(Settings(http_port=port), telemetry):
        status, body = await fetched(port, "/metrics")

    assert status == 200
    assert 'bridge_claimed_expirations_total{via="notification"} 2.0' in body
    assert 'bridge_claimed_expirations_total{via="sweep"} 1.0' in body


def test_a_kind_of_ending_is_counted_and_takes_its_node_down_alone() -> None:
    telemetry = Telemetry()
    shard = telemetry.shard()
    shard.node_named("other:1")
    for node in ("node:1", "other:1"):
        shard.mark_returned(node)

    shard.epoch_ended("node:1", Ending.SILENT, "Redis said nothing for 5.1 s")

    assert value(telemetry, "bridge_subscription_up", node="node:1") == 0
    assert value(telemetry, "bridge_subscription_up", node="other:1") == 1
    ended = {ending: value(telemetry, "bridge_epochs_ended_total", reason=ending.value) for ending in Ending}
    assert ended == {ending: 1.0 if ending is Ending.SILENT else 0.0 for ending in Ending}
    assert "said nothing" in telemetry.health.reasons["subscription"]


def test_the_canary_ages_between_scrapes_while_the_lease_is_held() -> None:
    clock = HandClock()
    telemetry, age = Telemetry(clock), "bridge_canary_age_seconds"
    shard = telemetry.shard()
    clock.now += 5
    assert value(telemetry, age) == 0
    shard.lease_acquired(1, first=True)
    clock.now += 3
    assert value(telemetry, age) == 3  # it has not been heard of yet
    shard.canary_heard(0.1)
    clock.now += 2
    assert value(telemetry, age) == 2
    shard.epoch_ended("node:1", Ending.MUTE, "mute")
    shard.lease_acquired(2, first=False)
    assert value(telemetry, age) == 2  # a new epoch proves nothing
    shard.epoch_ended("node:1", Ending.LEASE_LOST, "taken")
    assert value(telemetry, age) == value(telemetry, "bridge_lease_held") == 0
    shard.lease_acquired(3, first=False)
    shard.lease_awaited("another")
    clock.now += 9
    assert value(telemetry, age) == 0


def test_the_lease_is_held_no_longer_than_redis_is_heard_of() -> None:
    assert LedgerLimits().lease_ms == LEASE_SECONDS * 1000
    clock = HandClock()
    telemetry, name = Telemetry(clock), "bridge_lease_held"
    shard = telemetry.shard()
    assert value(telemetry, name) == 0
    shard.lease_acquired(1, first=True)
    clock.now += 4
    assert value(telemetry, name) == 1
    shard.ledger_seen(3, 2)
    clock.now += 4
    assert value(telemetry, name) == 1
    clock.now += 1
    assert value(telemetry, name) == 0  # it has run out by itself, though nothing has ended yet
    shard.ledger_seen(3, 2)
    assert value(telemetry, name) == 1
    shard.epoch_ended("node:1", Ending.CONNECTION_LOST, "closed")
    assert value(telemetry, name) == 0
    shard.lease_acquired(2, first=False)
    assert value(telemetry, name) == 1


def held(telemetry: Telemetry, number: int = 0, of: int = 1) -> ShardTelemetry:
    """A shard in which there is something of everything, and a scan that is half done."""
    shard = telemetry.shard(number, of)
    shard.lease_acquired(1, first=True)
    shard.gap_opened("start", 0, 1)
    shard.scan_started()
    shard.scan_progressed(5, 0.5)
    shard.ledger_seen(3, 2)
    shard.dead_letters_seen(4)
    return shard


def of_the_holder(telemetry: Telemetry, number: int = 0) -> list[float | None]:
    return [value(telemetry, f"bridge_{name}", shard=str(number)) for name in OF_THE_HOLDER]


def test_the_outbox_that_was_full_in_a_former_epoch_does_not_keep_the_next_one_from_being_ready() -> None:
    telemetry = Telemetry()
    shard = telemetry.shard()
    shard.lease_acquired(1, first=True)
    shard.outbox_filled(limit=10)

    shard.lease_acquired(2, first=False)

    assert "outbox" not in telemetry.health.reasons


@pytest.mark.parametrize(
    "leave",
    [
        lambda shard: shard.epoch_ended("node:1", Ending.LEASE_LOST, "taken"),
        lambda shard: shard.lease_awaited("another"),
        lambda shard: shard.lease_left(),
        lambda shard: shard.lease_released(),
    ],
    ids=["lost", "awaited", "left", "released"],
)
def test_without_the_lease_a_shard_has_nothing_that_another_bridge_counts_too(
    leave: Callable[[ShardTelemetry], None],
) -> None:
    telemetry = Telemetry()
    left, kept = held(telemetry, 0, 2), held(telemetry, 1, 2)
    assert of_the_holder(telemetry, 0) == of_the_holder(telemetry, 1) == [3, 2, 4, 1]

    leave(left)
    left.outbox_settled(7, 6)  # the acks of what was under way

    assert of_the_holder(telemetry, 0) == [0, 0, 0, 0]
    assert of_the_holder(telemetry, 1) == [3, 2, 4, 1]
    assert value(telemetry, "bridge_scan_progress_ratio", shard="0") == 1  # so that the least is of what is held
    assert value(telemetry, "bridge_scan_progress_ratio", shard="1") == 0.5
    kept.outbox_settled(1, 5)
    assert of_the_holder(telemetry, 1) == [3, 1, 5, 1]
    left.lease_acquired(2, first=False)
    left.outbox_settled(7, 6)
    assert of_the_holder(telemetry, 0) == [0, 7, 6, 0]


def test_a_subscription_that_ends_leaves_a_holder_what_it_has() -> None:
    telemetry = Telemetry()
    shard = held(telemetry)

    shard.epoch_ended("node:1", Ending.CONNECTION_LOST, "closed")
    assert of_the_holder(telemetry) == [3, 2, 4, 1]
    shard.lease_awaited("another")

    assert of_the_holder(telemetry) == [0, 0, 0, 0]
    assert value(telemetry, "bridge_scan_progress_ratio") == 0.5  # a single shard's scan has not been done


def test_a_loss_of_the_broker_is_counted_once() -> None:
    telemetry = Telemetry()
    telemetry.sink_connected()

    telemetry.sink_lost("the connection to the broker was lost")
    telemetry.sink_connected()

    assert value(telemetry, "bridge_broker_connections_lost_total") == 1


def test_a_scan_counts_while_it_is_under_way_and_the_next_one_begins_anew() -> None:
    telemetry = Telemetry()
    shard = telemetry.shard()
    shard.scan_started()
    shard.scan_progressed(300, 0.5)
    shard.scan_progressed(200, 1.0)
    shard.scan_completed(500, 0.25)
    assert value(telemetry, "bridge_scan_progress_ratio") == 1
    assert value(telemetry, "bridge_scan_keys") == 500
    assert value(telemetry, "bridge_scan_duration_seconds") == 0.25

    shard.scan_started()
    shard.scan_progressed(10, 0.125)

    assert value(telemetry, "bridge_scan_progress_ratio") == 0.125
    assert value(telemetry, "bridge_scan_keys") == 10
    assert value(telemetry, "bridge_scanned_keys_total") == 510


async def test_the_process_and_its_version_are_told_of_too() -> None:
    port = free_port()
    async with serve_http(Settings(http_port=port), Telemetry()):
        _, body = await fetched(port, "/metrics")

    assert f'bridge_build_info{{version="{__version__}"}} 1.0' in body
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"):
        assert re.search(rf"^{name} [1-9.]", body, re.MULTILINE), name


def test_each_log_event_is_a_noun_and_what_happened_to_it() -> None:
    irregular = {"sink.lost", "entries.forgotten", "messages.resent", "messages.stuck", "messages.unstuck"}

    events = logged()  # raises where two methods log the same

    assert len(events) > 25
    for name, (levels, fields, meaning) in events.items():
        assert re.fullmatch(r"[a-z]+\.([a-z_]+_)?[a-z]+(ed|d_out)", name) or name in irregular, name
        assert set(levels) <= {"debug", "info", "warning", "error"}, name
        assert all(re.fullmatch("[a-z_]+", field) for field in fields), name
        assert meaning, name


def test_every_event_of_telemetry_is_documented() -> None:
    parts = (Telemetry, ShardTelemetry, FieldTelemetry, BacklogTelemetry, ValuesTelemetry)
    text = "".join(Path(inspect.getfile(part)).read_text() for part in parts)

    in_source = set(re.findall(r'(?:log|info|warning|error|debug)\("([^"]+)"', text))

    assert in_source == logged().keys() - {
        "bridge.failed",
        "bridge.refused",
        "secret.exposed",
        "library.failed",
        "log.lines_dropped",
    }


@pytest.mark.parametrize("change", ["add a second", "add one of a key"])
def test_an_event_with_the_name_of_another_or_with_a_key_has_no_place(
    monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    def gap_shut(self: Telemetry) -> None:
        self._log.info("gap.closed")

    def key_claimed(self: Telemetry, key: bytes) -> None:
        self._log.info("key.claimed", key=key)

    monkeypatch.setattr(Telemetry, "added", gap_shut if change == "add a second" else key_claimed, raising=False)

    with pytest.raises((ValueError, KeyError), match=r"two methods log gap\.closed|bytes"):
        logged()


async def test_a_port_that_is_taken_is_refused_by_its_variables_name() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Refused, match="BRIDGE_HTTP_PORT: cannot listen"):
            async with serve_http(Settings(http_port=taken.getsockname()[1]), Telemetry()):
                pass


async def test_port_0_serves_nothing() -> None:
    async with serve_http(Settings(http_port=0), Telemetry()):
        pass


@pytest.mark.parametrize("chosen", ["json", None])
def test_log_lines_are_json_where_no_terminal_reads_them(
    capsys: pytest.CaptureFixture[str], chosen: logs.Format | None
) -> None:
    logs.configure("info", chosen)

    Telemetry().shard().gap_closed(recovered=2, ambiguous=1, missed=3)

    captured = capsys.readouterr()
    line = json.loads(captured.err)
    assert (line["event"], line["level"], line["recovered"]) == ("gap.closed", "info", 2)
    assert captured.out == ""


def test_console_lines_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "console")

    Telemetry().sink_connected()

    assert "sink.connected" in capsys.readouterr().err


def test_lines_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "json")

    Telemetry().sink_connected()

    assert capsys.readouterr().err == ""


def test_a_failure_is_logged_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")

    try:
        int("the reason")
    except ValueError as error:
        logs.failed(error)

    line = json.loads(capsys.readouterr().err)
    assert line["event"] == "bridge.failed"
    assert "Traceback" in line["exception"]
