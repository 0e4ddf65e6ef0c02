"""The peer that a variable names: a stub in its place is started as the real one is."""

import sys
from pathlib import Path
from typing import Final

import pytest

from tests.bench import benthos
from tests.bench.cases.peers import Load, crashed
from tests.bench.cases.throughput_jetstream import by_benthos
from tests.bench.peers import peers
from tests.support.servers import ROOT, NatsServer, RedisServer, require

STUB: Final = f"""#!{sys.executable}
import asyncio, json, pathlib, sys

import nats
from redis.asyncio import Redis

if sys.argv[1:] == ["--help"]:
    sys.exit("COMMANDS")
assert sys.argv[1] == "-c", sys.argv


async def main():
    config = json.loads(pathlib.Path(sys.argv[2]).read_text())
    source, sink = config["input"]["redis_pubsub"], config["output"]["nats_jetstream"]
    jetstream = (await nats.connect(sink["urls"][0])).jetstream()
    messages = Redis.from_url(source["url"], protocol=2).pubsub()
    await messages.subscribe(*source["channels"])
    async for message in messages.listen():
        if message["type"] == "message":
            headers = {{name: message["data"].decode() for name in sink["headers"]}}
            await jetstream.publish(sink["subject"], message["data"], headers=headers)


asyncio.run(main())
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That which the variable names."""
    require(RedisServer)
    require(NatsServer)
    assert benthos.program() is None
    stub = tmp_path / "benthos"
    stub.write_text(STUB)
    stub.chmod(0o755)
    monkeypatch.setenv("BENTHOS", str(stub))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return stub


async def test_a_peer_that_a_variable_names_is_measured(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.bench.cases.throughput_jetstream.QUIET_SECONDS", 60.0)
    named = benthos.program()
    assert named == stub
    figures = await by_benthos(named, 100)
    assert (figures["events"], figures["lost"]) == (100, 0)
    assert figures["client_cpu_us"] > 0
    assert figures["seconds"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("stub")
async def test_a_peer_that_a_variable_names_loses_what_expires_while_it_is_down() -> None:
    peer, load = next(one for one in peers() if one.name.startswith("Benthos")), Load(rate=100, seconds=4.0)
    figures = await crashed(peer, load)
    assert 0 < figures["lost"] < load.count
