"""The bridge's own keys, where Redis may evict any key. The server is a scripted one: it says it is of version 8.12."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import hiredis
import pytest
import structlog

from bridge.clock import SystemClock
from bridge.limits import SourceLimits
from bridge.redis.epoch.protection import Protection, own_keys
from bridge.redis.protocol.own_keys import Names
from bridge.redis.wire.endpoint import Endpoint
from bridge.settings import Settings
from bridge.telemetry.events import Telemetry
from tests.support.servers import wait_until

NAMES = Names("expiry-bridge", 0)


class Server:
    """One that takes BLESS SET, as Redis 8.12 is documented to."""

    def __init__(self, policy: str, version: str = "8.12.0") -> None:
        self.policy, self.version = policy, version
        self.there = {NAMES.lease, NAMES.deadlines}
        """Its keys."""
        self.blessed: set[bytes] = set()
        self.denies = False
        self.looks = 0
        """How often it was asked for its memory policy."""

    def answer(self, command: list[bytes]) -> bytes:
        """The reply to one command."""
        name = command[0].upper()
        if name == b"INFO":
            self.looks += command[1].lower() == b"memory"
            told = f"redis_version:{self.version}\r\nrole:master\r\nmaxmemory_policy:{self.policy}\r\n".encode()
            return b"$%d\r\n%b\r\n" % (len(told), told)
        if name != b"BLESS":
            return b"+OK\r\n"
        assert (command[1], command[3]) == (b"SET", b"NO-EVICT")
        if self.denies:
            return b"-NOPERM User bridge has no permissions to run the 'bless|set' command\r\n"
        if command[2] not in self.there:
            return b"-ERR no such key\r\n"
        self.blessed.add(command[2])
        return b":1\r\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        commands = hiredis.Reader()
        while data := await reader.read(65536):
            commands.feed(data)
            while command := commands.gets():
                writer.write(self.answer(command))
        writer.close()


@asynccontextmanager
async def protected(server: Server) -> AsyncIterator[None]:
    """A server whose keys are protected meanwhile, all the time."""
    limits = SourceLimits(bless=0.001, eviction_check=0.001)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        endpoint = Endpoint.of(Settings(redis_url=f"redis://127.0.0.1:{port}"))
        client = endpoint.client(connections=1)
        protection = Protection(client, endpoint, own_keys(NAMES), limits, SystemClock(), Telemetry().shard(0))
        task = asyncio.create_task(protection.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.aclose()


async def test_what_there_is_of_the_bridges_keys_is_protected_and_what_is_made_later_as_well() -> None:
    server = Server("allkeys-lru")
    async with protected(server):
        await wait_until(lambda: server.blessed == {NAMES.lease, NAMES.deadlines}, "the protection")
        server.there.add(NAMES.outbox)
        await wait_until(lambda: NAMES.outbox in server.blessed, "the protection of the outbox")


async def test_a_key_that_was_made_anew_is_protected_anew() -> None:
    server = Server("allkeys-lfu")
    async with protected(server):
        await wait_until(lambda: NAMES.deadlines in server.blessed, "the protection")
        server.blessed.clear()
        await wait_until(lambda: NAMES.deadlines in server.blessed, "the protection of the new one")


@pytest.mark.parametrize("server", [Server("noeviction"), Server("allkeys-lru", version="8.10.3")])
async def test_nothing_is_protected_where_nothing_is_in_danger_or_no_server_can(server: Server) -> None:
    async with protected(server):
        await wait_until(lambda: server.looks > 1, "two looks at the policy")
    assert not server.blessed


async def test_where_the_user_may_not_it_is_said_once() -> None:
    server = Server("allkeys-lru")
    server.denies = True
    with structlog.testing.capture_logs() as logs:
        async with protected(server):
            await wait_until(lambda: server.looks > 2, "some attempts")
    [warning] = [entry for entry in logs if entry["event"] == "ledger.endangered"]
    assert "+bless|set" in warning["remedy"]


def test_all_that_outlives_a_moment_is_protected() -> None:
    assert {NAMES.lease, NAMES.deadlines, NAMES.outbox, NAMES.dead, NAMES.members} <= set(own_keys(NAMES))
    assert NAMES.canary not in own_keys(NAMES)
