"""The session that reads a replication stream, against a server that says what the tests want it to say."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import hiredis
import pytest

from bridge.limits import BacklogLimits
from bridge.redis.backlog.journal import Unfillable
from bridge.redis.backlog.session import attached, packed
from bridge.redis.wire.endpoint import Endpoint
from bridge.settings import Settings
from tests.unit.redis.backlog.ground import MEASURED

INFO = {
    "master_replid": MEASURED.replid,
    "master_replid2": "0" * 40,
    "master_repl_offset": 9000,
    "second_repl_offset": -1,
    "repl_backlog_active": 1,
    "repl_backlog_size": 4000,
    "repl_backlog_first_byte_offset": 5001,
    "repl_backlog_histlen": 3999,
}
STREAM = packed([b"SELECT", b"0"]) + packed([b"DEL", b"a"])


class Primary:
    """A server that a replica may attach to."""

    def __init__(
        self, answer: bytes = b"+CONTINUE\r\n", stream: bytes = STREAM, info: Mapping[str, object] | None = None
    ) -> None:
        """`info`: what it says otherwise of itself than INFO here."""
        self.answer = answer
        self.stream = stream
        self.info = INFO | dict(info or {})
        self.asked: list[Sequence[bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        try:
            while data := await reader.read(65536):
                commands.feed(data)
                while (command := commands.gets()) is not False:
                    self.asked.append(command)
                    writer.write(self.answered(command[0]))
                    if command[0] == b"PSYNC":
                        writer.write_eof()
        except ConnectionError:
            pass
        finally:
            writer.close()

    def answered(self, name: bytes) -> bytes:
        if name == b"INFO":
            text = "# Replication\r\n" + "".join(f"{field}:{value}\r\n" for field, value in self.info.items())
            return b"$%d\r\n%b\r\n" % (len(text), text.encode())
        return self.answer + self.stream if name == b"PSYNC" else b"+OK\r\n"

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Endpoint]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        async with server:
            yield Endpoint.of(Settings(redis_url=f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"))

    async def read(self, count: int = 2, limits: BacklogLimits | None = None) -> list[Sequence[bytes]]:
        """So many commands that a session gets. Raises Unfillable."""
        found: list[Sequence[bytes]] = []
        async with self.served() as endpoint, attached(endpoint, MEASURED, limits or BacklogLimits()) as session:
            async for command in session.commands():
                found += [command]
                if len(found) == count:
                    break
        return found


async def test_the_stream_is_read_from_where_it_was() -> None:
    primary = Primary()
    assert await primary.read() == [[b"SELECT", b"0"], [b"DEL", b"a"]]
    assert primary.asked[-1] == [b"PSYNC", MEASURED.replid.encode(), b"5001"]
    assert [b"REPLCONF", b"capa", b"eof"] in primary.asked


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"repl_backlog_active": 0}, "no replication backlog"),
        ({"master_replid": "ff" * 20}, "another stream"),
        ({"master_repl_offset": 4999}, "not got so far"),
        ({"repl_backlog_first_byte_offset": 5002}, "so far back"),
        ({"repl_backlog_histlen": 4000}, "so far back"),
        ({"master_repl_offset": 1 << 40}, "too long"),
        ({"repl_backlog_size": "?"}, "does not say"),
        ({"master_replid": "ff" * 20, "master_replid2": MEASURED.replid, "second_repl_offset": 5000}, "not got so far"),
    ],
)
async def test_what_the_server_does_not_have_is_never_asked_for(info: dict[str, object], said: str) -> None:
    primary = Primary(info=info)
    with pytest.raises(Unfillable, match=said):
        await primary.read()
    assert not any(command[0] == b"PSYNC" for command in primary.asked)


async def test_the_stream_goes_on_under_another_name_after_a_promotion() -> None:
    promoted = Primary(info={"master_replid": "ff" * 20, "master_replid2": MEASURED.replid, "second_repl_offset": 6000})
    assert await promoted.read() == [[b"SELECT", b"0"], [b"DEL", b"a"]]


@pytest.mark.parametrize(
    ("answer", "stream", "said"),
    [
        (b"+FULLRESYNC " + b"f" * 40 + b" 1\r\n", b"$9\r\nREDIS0010", "does not go on"),
        (b"-NOPERM no permissions\r\n", b"", r"\+psync"),
        (b"-ERR unknown command 'PSYNC'\r\n", b"", r"\+psync"),
        (b"", b"", "closed"),
        (b"\n\n", b"", "not its protocol"),
        (b"+CONTINUE\r\n", b"$5\r\nREDIS", "closed"),
        (b"+CONTINUE\r\n", b"$5\r\nREDIS\r\n", "no command"),
        (b"+CONTINUE\r\n", b"*0\r\n", "no command"),
        (b"+CONTINUE\r\n", b"*1\r\n:1\r\n", "no command"),
        (b"+CONTINUE\r\n", b"*4000000000\r\n", "not its protocol|closed"),
        (b"+CONTINUE\r\n", b"*2\r\n$3\r\nDEL\r\n$99999999\r\n" + b"x" * 100_000, "more than there should"),
        (b"+CONTINUE\r\n", STREAM[:-3], "closed"),
    ],
)
async def test_what_is_no_stream_fills_no_gap(answer: bytes, stream: bytes, said: str) -> None:
    with pytest.raises(Unfillable, match=said):
        await Primary(answer, stream).read(3, replace(BacklogLimits(), command_bytes=50_000))


async def test_a_server_that_is_not_there_fills_no_gap() -> None:
    async with Primary().served() as endpoint:
        pass
    with pytest.raises(Unfillable):
        async with attached(endpoint, MEASURED, BacklogLimits()):
            pass
