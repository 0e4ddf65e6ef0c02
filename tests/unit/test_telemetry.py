"""What operators see, from outside: logs, health, metrics, and the port that serves them."""

import json
import socket

import aiohttp
import pytest

from bridge.errors import Refused
from bridge.settings import Settings
from bridge.telemetry import logs
from bridge.telemetry.events import Telemetry
from bridge.telemetry.health import Health
from bridge.telemetry.http import serve_http


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
    async with serve_http(Settings(http_port=port), telemetry):
        assert await fetched(port, "/livez") == (200, '{"status": "live"}')
        status, body = await fetched(port, "/readyz")
        assert status == 503
        assert json.loads(body)["reasons"] == {"subscription": "starting", "broker": "starting"}

        telemetry.sink_connected()
        telemetry.mark_returned()

        assert (await fetched(port, "/readyz"))[0] == 200


async def test_metrics_are_prometheus_text_with_bounded_labels() -> None:
    telemetry, port = Telemetry(), free_port()
    telemetry.batch_applied(2, 1)
    async with serve_http(Settings(http_port=port), telemetry):
        status, body = await fetched(port, "/metrics")

    assert status == 200
    assert 'bridge_claimed_expirations_total{via="notification"} 2.0' in body
    assert 'bridge_claimed_expirations_total{via="sweep"} 1.0' in body


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

    Telemetry().gap_closed(recovered=2, ambiguous=1, missed=3)

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
