"""The systemd unit, as systemd judges it, and what the bridge reports to systemd."""

import asyncio
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.commands.embedded import free_port
from bridge.telemetry.systemd import notifying
from tests.support.deployed import UNIT, judged
from tests.support.servers import Bridge

EXPOSURE = 15
"""Tenths of `systemd-analyze security`'s scale, which calls less than 20 OK, and an unprotected service 96 UNSAFE."""
SYSTEMD = "Debian: apt install systemd"


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """Where a service reports to, at `tmp_path / "notify"`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(0)
        yield channel


async def heard(channel: socket.socket) -> str:
    """The next report."""
    return (await asyncio.wait_for(asyncio.get_running_loop().sock_recv(channel, 100), 10)).decode()


def test_systemd_takes_the_installed_unit_and_finds_little_exposed(tmp_path: Path) -> None:
    program = tmp_path / "opt/expiry-bridge/bin/expiry-bridge"
    unit = tmp_path / "etc/systemd/system/expiry-bridge.service"
    for path in (program, unit):
        path.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    unit.write_text(UNIT.replace("/opt/expiry-bridge/bin/expiry-bridge", str(program)))

    judged("systemd-analyze", "verify", "--man=no", str(unit), get=SYSTEMD)
    judged("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", str(unit), get=SYSTEMD)


def test_the_unit_hides_nothing_that_the_metrics_of_the_process_need() -> None:
    assert "\nProcSubset=" not in UNIT  # /proc/stat and /proc/meminfo would be missing


async def test_a_bridge_reports_that_it_is_up_that_it_turns_and_that_it_stops(
    systemd: socket.socket, tmp_path: Path
) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}"
    told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}

    async with Bridge({"BRIDGE_REDIS_URL": nowhere, "BRIDGE_SINK": "stdout", **told}) as bridge:
        assert await heard(systemd) == "READY=1"
        assert (await bridge.get("/livez"))[0] == 200
        assert {await heard(systemd) for _ in range(3)} == {"WATCHDOG=1"}
        stopping = asyncio.create_task(bridge.stop())
        while (report := await heard(systemd)) == "WATCHDOG=1":
            pass
        assert report == "STOPPING=1"
        await stopping


async def test_a_bridge_with_bad_settings_never_reports_that_it_is_up(systemd: socket.socket, tmp_path: Path) -> None:
    async with Bridge({"BRIDGE_SINK": "pigeon", "NOTIFY_SOCKET": str(tmp_path / "notify")}) as bridge:
        assert await bridge.exited() == 2
    with pytest.raises(BlockingIOError):
        systemd.recv(100)


async def test_the_watchdog_is_silent_while_the_loop_stands_still(systemd: socket.socket, tmp_path: Path) -> None:
    with notifying({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000"}):
        assert [await heard(systemd) for _ in range(2)] == ["READY=1", "WATCHDOG=1"]
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:  # a callback that does not return
            pass
        with pytest.raises(BlockingIOError):
            systemd.recv(100)
        assert await heard(systemd) == "WATCHDOG=1"


async def test_nothing_is_reported_where_nobody_listens(systemd: socket.socket) -> None:
    with notifying({"WATCHDOG_USEC": "1000"}):
        await asyncio.sleep(0)
    with pytest.raises(BlockingIOError):
        systemd.recv(100)


async def test_without_a_watchdog_only_the_start_and_the_end_are_reported(
    systemd: socket.socket, tmp_path: Path
) -> None:
    with notifying({"NOTIFY_SOCKET": str(tmp_path / "notify")}):
        assert await heard(systemd) == "READY=1"
    assert await heard(systemd) == "STOPPING=1"


async def test_a_socket_of_the_abstract_namespace_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind("")  # the kernel chooses an abstract name
        channel.settimeout(0)
        with notifying({"NOTIFY_SOCKET": "@" + channel.getsockname()[1:].decode()}):
            assert await heard(channel) == "READY=1"
