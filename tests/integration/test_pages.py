"""Every command that the README and the other pages show exists, and does what it says."""

import asyncio
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bridge.cli import arguments as flags
from tests.support.docs import pages
from tests.support.servers import PASSED_ON, ROOT, TOOLS, Bridge, NatsServer, RedisServer, require

PAGES = [page for page in pages() if page.name != "CHANGELOG.md" and not page.is_relative_to(ROOT / "tests")]
ELSEWHERE = {"make", "pip", "pip-audit", "export", "docker", "helm", "kafka-acls.sh"}
"""What begins a line that no test runs: what it does is installing, or needs an engine or a cluster."""
SHORTER = {"--keys 1000": "--keys 50", "--ttl-max 5s": "--ttl-max 1s"}
PLACEHOLDERS = {"ID…": "1-0"}


def shown(page: Path) -> list[str]:
    """The lines of its shell blocks: those that go on are joined, comments are off."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := line.partition("   #")[0].strip())]


def runnable(lines: Sequence[str]) -> list[str]:
    """Those that a test can run. The bridge of `expiry-bridge run` runs anyway."""
    return [line for line in lines if line.split()[0] not in ELSEWHERE and not line.endswith("expiry-bridge run")]


def inline(page: Path, program: str) -> list[list[str]]:
    """The commands of a program that stand in its text, as words."""
    commands = re.findall(rf"`{program} ([a-z][^`]*)`", page.read_text())
    for placeholder, example in PLACEHOLDERS.items():
        commands = [command.replace(placeholder, example) for command in commands]
    return [shlex.split(command) for command in commands]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_text_are_commands_that_there_are(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    for words in inline(page, "expiry-bridge"):
        if words != ["dead", "drop"]:  # of whose ids the text goes on to speak
            assert flags.parse(words).command == words[0]
    for words in inline(page, "make"):
        assert words[0] in targets


@pytest.mark.slow
@pytest.mark.unmeasured
async def test_the_commands_of_the_pages_do_what_they_say(tmp_path: Path) -> None:
    require(RedisServer)
    require(NatsServer)
    lines = {page.name: runnable(shown(page)) for page in PAGES}
    durable = {"appendonly": "yes", "save": "3600 1"}
    with RedisServer(durable) as redis_server, NatsServer() as nats_server:
        settings = {"BRIDGE_REDIS_URL": redis_server.url, "BRIDGE_NATS_URL": nats_server.url}
        async with Bridge(settings) as bridge, Redis(port=redis_server.port) as redis:
            await bridge.ready()
            await redis.set("lasting", "", ex=600)
            shims(tmp_path, redis_server)
            uninstall = lines.pop("upgrade.md")
            before = list(dict.fromkeys(line for page in lines.values() for line in page))
            assert [line for line in before if line.startswith("expiry-bridge verify")]
            for line in before:
                await run(line, tmp_path, bridge)
            assert await bridge.stop() == 0
            assert await redis.keys("{expiry-bridge:*")
            for line in uninstall:
                await run(line, tmp_path, bridge)
            assert await redis.keys() == [b"lasting"]


def shims(directory: Path, redis_server: RedisServer) -> None:
    """Programs that are found first: the bridge under test, and a `redis-cli` that knows the test's server alone."""
    unpacked = TOOLS.parent / "redis" / "usr"
    client = shutil.which("redis-cli", path=f"{unpacked / 'bin'}:{os.environ['PATH']}")
    if client is None:
        pytest.skip("NOT CHECKED: redis-cli is not installed (Debian: apt install redis-tools)")
    library = next((unpacked / "lib").glob("*-linux-*"), Path("/nowhere"))
    programs: dict[str, Sequence[object]] = {
        "expiry-bridge": [sys.executable, "-m", "bridge"],
        "redis-cli": ["env", f"LD_LIBRARY_PATH={library}", client, "-p", redis_server.port],
    }
    for name, words in programs.items():
        shim = directory / name
        shim.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n')
        shim.chmod(0o755)


async def run(line: str, directory: Path, bridge: Bridge) -> None:
    """It has to end well."""
    line = line.replace("http://BRIDGE:8080", f"http://127.0.0.1:{bridge.http_port}")
    for example, shorter in SHORTER.items():
        line = line.replace(example, shorter)
    environment = bridge.environment()
    assert environment.keys() >= {"PATH"} <= {*PASSED_ON}
    process = await asyncio.create_subprocess_shell(
        f"set -e; {line}",
        env={**environment, "PATH": f"{directory}:{environment['PATH']}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, f"{line}\n{said.decode()}"
