"""How the process starts and ends: in whatever state it finds its streams, its locale, and the first second."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIG_DFL, SIG_IGN, SIGHUP, SIGTERM, signal

import pytest

from tests.support.deployments.world import bridged, settings_for
from tests.support.servers import ROOT, Bridge, FreshBridge, NatsServer, RedisServer, wait_until

pytestmark = pytest.mark.unmeasured

ASCII = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
RUN = [sys.executable, "-m", "bridge", "run"]


def environment(**settings: str) -> dict[str, str]:
    own = {f"BRIDGE_{name.upper()}": value for name, value in settings.items()}
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "BRIDGE_HTTP_PORT": "0", **own}


def ended(command: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)


def streams_of(pid: int) -> set[str]:
    return {str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in range(3)}


def problems(log: str) -> list[str]:
    events = [json.loads(line) for line in log.splitlines()]
    assert {(event["event"], event["level"]) for event in events} == {("bridge.refused", "error")}
    return [event["problem"] for event in events]


# Its end.


@pytest.mark.parametrize("number", [SIGTERM, SIGHUP])
def test_a_signal_while_it_still_imports_ends_it_at_once(number: int, tmp_path: Path) -> None:
    """As process 1 of a container, it would be left to SIGKILL: the kernel ignores what has no handler."""
    os.mkfifo(tmp_path / "imported")
    (tmp_path / "pydantic.py").write_text(f"open({str(tmp_path / 'imported')!r}).read()\nwhile True: pass\n")
    env = environment() | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    process = subprocess.Popen(RUN, env=env, preexec_fn=lambda: signal(SIGHUP, SIG_DFL))  # noqa: PLW1509 - one thread
    try:
        (tmp_path / "imported").write_text("go on")  # returns when the module is being imported
        process.send_signal(number)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


async def test_a_terminal_that_closes_has_it_drain(redis_server: RedisServer, nats_server: NatsServer) -> None:
    with bridged(redis_server, nats_server) as bridge:
        await bridge.ready()
        bridge.send_signal(SIGHUP)
        assert await bridge.exited() == 0
        assert '"signal": "SIGHUP"' in bridge.log()
        assert '"drained": true' in bridge.log()


async def test_under_nohup_it_goes_on_when_the_terminal_closes(
    redis_server: RedisServer, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = signal(SIGHUP, SIG_IGN)  # which a child inherits
    try:
        bridge = FreshBridge(settings_for(redis_server, nats_server))
        with bridge:
            await bridge.ready()
            bridge.send_signal(SIGHUP)
            bridge.send_signal(SIGTERM)
            assert await bridge.exited() == 0
            assert '"signal": "SIGTERM"' in bridge.log()
            assert "SIGHUP" not in bridge.log()
    finally:
        signal(SIGHUP, former)


# Its streams.


@pytest.mark.parametrize("closed", [">&-", "<&- >&-", "<&- >&- 2>&-", "1</dev/null"])
def test_without_a_standard_output_there_is_no_stdout_sink(redis_server: RedisServer, closed: str) -> None:
    env = environment(sink="stdout", redis_url=redis_server.url)
    run = ended(["sh", "-c", f'exec "$0" "$@" {closed}', *RUN], env)
    assert run.returncode == 1
    if "2>" not in closed:
        (problem,) = [json.loads(line)["problem"] for line in run.stderr.splitlines() if "bridge.refused" in line]
        assert problem.startswith("standard output is closed, or not open for writing")


async def test_no_socket_of_ours_becomes_a_standard_stream(
    redis_server: RedisServer, nats_server: NatsServer, tmp_path: Path
) -> None:
    bridge = Bridge(settings_for(redis_server, nats_server))
    process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
        ["/bin/sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', *bridge.command()], env=bridge.environment(), cwd=tmp_path
    )
    try:

        async def ready() -> bool:
            try:
                return (await bridge.get("/readyz"))[0] == 200
            except OSError:
                return False

        await wait_until(ready, "readiness")
        assert streams_of(process.pid) == {os.devnull}
        process.send_signal(SIGTERM)
        await wait_until(lambda: process.poll() is not None, "the end")
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def test_a_command_without_any_stream_still_has_a_status(redis_server: RedisServer, nats_server: NatsServer) -> None:
    env = environment(redis_url=redis_server.url, nats_url=nats_server.url)
    run = ended(["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', sys.executable, "-m", "bridge", "status"], env)
    assert run.returncode == 0


# What it says when it cannot start.


def test_wrong_settings_are_log_events() -> None:
    run = ended(RUN, environment(http_port="x", sink="rabbit"))
    assert run.returncode == 2
    assert [problem.partition(":")[0] for problem in problems(run.stderr)] == ["BRIDGE_SINK", "BRIDGE_HTTP_PORT"]


def test_a_port_that_is_taken_is_a_log_event() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        run = ended(RUN, environment(http_port=str(taken.getsockname()[1]), log_format="json"))
    assert run.returncode == 1
    assert problems(run.stderr)[0].startswith("BRIDGE_HTTP_PORT: cannot listen")


@pytest.mark.parametrize("by", ["environment", "flag", "file"])
def test_the_format_asked_for_is_the_one_that_wrong_settings_are_told_in(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env, flags = environment(sink="rabbit"), list[str]()
    match by:
        case "environment":
            env["BRIDGE_LOG_FORMAT"] = "console"
        case "flag":
            flags = ["--log-format", "console"]
        case _:
            Path(".env").write_text("BRIDGE_LOG_FORMAT=console\n")
    run = ended([*RUN, *flags], env)
    assert run.returncode == 2
    assert "bridge.refused" in run.stderr
    assert not run.stderr.startswith("{")


# Its locale.


@pytest.mark.slow
async def test_it_works_in_a_locale_that_knows_only_ascii(redis_server: RedisServer, nats_server: NatsServer) -> None:
    bridge = FreshBridge({**settings_for(redis_server, nats_server), **ASCII})
    with bridge:
        await bridge.ready()
        assert await bridge.stop() == 0
    env = environment(redis_url=redis_server.url, nats_url=nats_server.url) | ASCII
    for command in (["check"], ["status"], ["settings"], ["run", "--help"]):
        run = subprocess.run(  # noqa: ASYNC221 - nothing else goes on
            [sys.executable, "-m", "bridge", *command], env=env, capture_output=True, check=False, timeout=60
        )
        assert run.returncode in {0, 1}, run.stderr
        assert b"Traceback" not in run.stderr, run.stderr
        assert run.stdout.isascii()
