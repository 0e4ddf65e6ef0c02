"""Commands to a server at the byte level that says what the tests want it to say."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace

import pytest
from redis.exceptions import NoScriptError

from bridge.clock import SystemClock
from bridge.errors import NotConnected, Refused
from bridge.limits import WireLimits
from bridge.redis.wire.binding import Binding, Droppable
from bridge.redis.wire.commands import Commands
from bridge.redis.wire.endpoint import CLUSTER, Endpoint
from bridge.redis.wire.errors import Fenced
from bridge.redis.wire.exchange import Exchange
from bridge.settings import Settings
from tests.support.servers import wait_until

Answer = Callable[[bytes], bytes | None]
"""To what was received: what to say; None: hang up."""


class Script:
    """A server."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.heard: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.lost = 0
        self.hangs_up = False
        """After its first answer."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while data := await reader.read(65536):
                self.heard.append(data)
                said = b"+OK\r\n" if b"SETNAME" in data and data.count(b"*") == 1 else self.answer(data)
                if said is None:
                    break
                writer.write(said)
                if self.hangs_up:
                    break
        except ConnectionError:
            pass
        finally:
            self.lost += 1
            writer.close()


def info(run_id: bytes) -> bytes:
    """The answers to SETNAME and INFO."""
    text = b"# Server\r\nrun_id:%b\r\nuptime_in_seconds:5\r\n" % run_id
    return b"+OK\r\n$%d\r\n%b\r\n" % (len(text), text)


def always(reply: bytes | None) -> Answer:
    return lambda _: reply


@asynccontextmanager
async def served(
    answer: Answer, *, url: str = "redis://%s/0", seconds: float = 5.0
) -> AsyncIterator[tuple[Script, Commands]]:
    script = Script(answer)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    limits = WireLimits(command=seconds, handshake=seconds / 2)
    async with server:
        with closing(Commands(Endpoint.of(Settings(redis_url=url % f"127.0.0.1:{port}"), limits))) as commands:
            yield script, commands
        for writer in script.writers:
            writer.transport.abort()


async def test_one_connection_serves_one_command_after_the_other_and_several_those_that_are_asked_at_once() -> None:
    async with served(always(b":1\r\n")) as (script, commands):
        assert [await commands.ask(b"A", n, "x") for n in range(3)] == [1, 1, 1]
        assert len(script.writers) == 1
        assert script.heard[1] == b"*3\r\n$1\r\nA\r\n$1\r\n0\r\n$1\r\nx\r\n"

        assert await asyncio.gather(*(commands.ask(b"B") for _ in range(3))) == [1, 1, 1]
        assert len(script.writers) == 3


async def test_a_reply_may_come_in_pieces_and_several_in_one_piece() -> None:
    async with served(always(b"")) as (script, commands):
        asked = asyncio.create_task(commands.answers([(b"ASKING",), (b"GET", b"k")]))
        await wait_until(lambda: len(script.heard) == 2)
        script.writers[0].write(b"+OK\r\n$3\r\nv")
        await asyncio.sleep(0)
        assert not asked.done()
        script.writers[0].write(b"\r\n\r\n")
        assert await asked == [b"OK", b"v\r\n"]


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (b"-FENCED another epoch\r\n", Fenced, "another epoch"),
        (b"-LOADING Redis is loading\r\n", NotConnected, "loading"),
        (b"-NOAUTH Authentication required.\r\n", Refused, "refuses the login"),
        (b"-NOPERM no permissions\r\n", Refused, "does not permit"),
        (b"-MOVED 1 10.0.0.1:7000\r\n", Refused, "node of a cluster"),
        (b"-READONLY You can't write against a read only replica.\r\n", Refused, "is a replica"),
        (b"-CLUSTERDOWN Hash slot not served\r\n", NotConnected, "cannot serve now"),
        (b"-ERR max number of clients reached\r\n", NotConnected, "limit of clients"),
        (b"HTTP/1.1 400 Bad Request\r\n", Refused, "not answer like a Redis"),
        (b"$99999999999999999999\r\n", Refused, "not answer like a Redis"),
        (b":1\r\n:2\r\n", Refused, "not answer like a Redis"),
        (b"-MOVED\r\n", Refused, "not answer like a Redis"),
        (b"-ASK 1 host:port\r\n", Refused, "not answer like a Redis"),
        (None, NotConnected, "closed"),
    ],
)
async def test_errors_are_read_as_those_of_the_client_library_are(
    reply: bytes | None, error: type[Exception], words: str
) -> None:
    async with served(always(reply)) as (_, commands):
        with pytest.raises(error, match=words):
            await commands.ask(b"EVALSHA", b"abc")


async def test_where_a_finder_names_the_server_what_it_does_not_serve_is_looked_for_elsewhere() -> None:
    async with served(always(b"-MOVED 1 10.0.0.1:7000\r\n")) as (_, commands):
        commands.endpoint = replace(commands.endpoint, finder=CLUSTER)
        with pytest.raises(NotConnected, match="does not serve the bridge's keys"):
            await commands.ask(b"EVALSHA", b"abc")


async def test_an_error_among_several_replies_is_one_of_them() -> None:
    async with served(always(b"+OK\r\n-NOSCRIPT No matching script.\r\n")) as (_, commands):
        ok, error = await commands.answers([(b"ASKING",), (b"EVALSHA", b"abc")])
        assert ok == b"OK"
        assert isinstance(error, NoScriptError)


async def test_a_command_that_is_not_answered_in_time_ends_its_connection_and_no_other_one() -> None:
    slow = b"SLOW"
    async with served(lambda data: b"" if slow in data else b":1\r\n", seconds=0.3) as (script, commands):
        waiting = [asyncio.create_task(commands.ask(slow)), asyncio.create_task(commands.ask(slow))]
        while not all(task.done() for task in waiting):
            assert await commands.ask(b"QUICK") == 1
            await asyncio.sleep(0.01)
        for task in waiting:
            with pytest.raises(NotConnected, match=r"no answer within 0\.3 s"):
                await task
        await wait_until(lambda: script.lost == 2)
        assert await commands.ask(b"QUICK") == 1
        assert len(script.writers) == 3


async def test_what_is_given_up_is_never_taken_for_the_answer_to_what_is_asked_next() -> None:
    async with served(lambda data: b"" if b"LATE" in data else b"+next\r\n") as (script, commands):
        late = asyncio.create_task(commands.ask(b"LATE"))
        await wait_until(lambda: len(script.heard) == 2)
        late.cancel()
        script.writers[0].write(b"+late\r\n")
        assert await commands.ask(b"NEXT") == b"next"
        assert late.cancelled()
        await wait_until(lambda: script.lost == 1)


async def test_a_connection_that_was_lost_while_nothing_was_asked_is_opened_again() -> None:
    async with served(always(b":1\r\n")) as (script, commands):
        assert await commands.ask(b"A") == 1
        script.writers[0].close()
        await wait_until(lambda: not commands.connected)
        assert await commands.ask(b"A") == 1


async def test_what_nobody_asked_for_ends_the_connection() -> None:
    async with served(always(b":1\r\n")) as (script, commands):
        assert await commands.ask(b"A") == 1
        script.writers[0].write(b"+unasked\r\n")
        await wait_until(lambda: script.lost == 1)
        assert await commands.ask(b"A") == 1


async def test_it_logs_in_and_chooses_its_database_before_anything_else() -> None:
    greeting = b"+OK\r\n+OK\r\n-NOPERM SETNAME\r\n"
    answer = lambda data: greeting if b"AUTH" in data else b":1\r\n"  # noqa: E731
    async with served(answer, url="redis://ann:s3cret@%s/7") as (script, commands):
        assert await commands.ask(b"A") == 1
        assert script.heard[0].startswith(
            b"*3\r\n$4\r\nAUTH\r\n$3\r\nann\r\n$6\r\ns3cret\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n7\r\n*3\r\n$6\r\nCLIENT\r\n"
        )


@pytest.mark.parametrize(
    ("greeting", "error", "words"),
    [
        (b"-WRONGPASS invalid username-password pair\r\n-NOAUTH x\r\n-NOAUTH x\r\n", Refused, "refuses the login"),
        (b"+OK\r\n-ERR DB index is out of range\r\n+OK\r\n", Refused, "has no database 99"),
        (b"-ERR max number of clients reached\r\n", NotConnected, "limit of clients"),
        (b"-DENIED Redis is running in protected mode\r\n", Refused, "protected mode"),
        (None, NotConnected, "closed the connection before it answered"),
    ],
)
async def test_a_greeting_that_fails_says_why_and_never_shows_the_password(
    greeting: bytes | None, error: type[Exception], words: str
) -> None:
    async with served(always(greeting), url="redis://:s3cret@%s/99") as (script, commands):
        script.hangs_up = True
        with pytest.raises(error, match=words) as caught:
            await commands.ask(b"A")
        assert "s3cret" not in str(caught.value)


async def test_a_server_that_is_not_there_is_not_connected() -> None:
    async with served(always(b"")) as (_, commands):
        endpoint = commands.endpoint
    with closing(Commands(endpoint)) as commands, pytest.raises(NotConnected, match="onnect"):
        await commands.ask(b"A")


async def test_another_process_than_the_bound_one_gets_no_command() -> None:
    run_ids = iter([b"a", b"a", b"b"])

    def answer(data: bytes) -> bytes:
        return info(next(run_ids)) if b"INFO" in data else b":1\r\n"

    async with served(answer) as (script, unbound):
        bound = unbound.endpoint.bound()
        with closing(Commands(bound)) as commands:
            assert await asyncio.gather(*(commands.ask(b"A") for _ in range(2))) == [1, 1]
            for writer in script.writers:
                writer.close()
            await wait_until(lambda: not commands.connected)
            with pytest.raises(NotConnected, match="another server answers"):
                await commands.ask(b"B")
            assert not any(b"B\r\n" in data for data in script.heard if b"INFO" not in data)


async def test_what_is_under_way_when_the_binding_is_released_fails_at_once() -> None:
    answer = lambda data: info(b"a") if b"INFO" in data else b""  # noqa: E731
    async with served(answer) as (script, unbound):
        bound = unbound.endpoint.bound()
        with closing(Commands(bound)) as commands:
            asked = asyncio.create_task(commands.ask(b"A"))
            await wait_until(lambda: len(script.heard) == 2)
            assert bound.binding is not None
            await bound.binding.release()
            with pytest.raises(NotConnected):
                await asked
            assert not commands.connected


class ReleasedEarly(Binding):
    """One that is released when its first connection has its answers, before whoever waits for them has run."""

    released: asyncio.Task[None] | None = None

    def opened(self, connection: Droppable) -> None:
        assert isinstance(connection, Exchange)
        super().opened(connection)
        self.released = self.released or asyncio.create_task(self._release(connection))

    async def _release(self, connection: Exchange) -> None:
        for asked in (True, False):
            for _ in range(100_000):
                if connection.idle is not asked:
                    break
                await asyncio.sleep(0)
        await self.release()


async def test_what_was_answered_just_before_the_binding_is_released_binds_no_later_epoch() -> None:
    answer = lambda data: info(b"former") if b"INFO" in data else b":1\r\n"  # noqa: E731
    async with served(answer) as (_, unbound):
        binding = ReleasedEarly(SystemClock())
        with closing(Commands(replace(unbound.endpoint, binding=binding))) as commands:
            with pytest.raises(NotConnected, match="its epoch is over"):
                await commands.ask(b"A")
            assert binding.releases == 1
            assert binding.run_id is None


async def test_what_cannot_be_sent_leaves_no_connection_behind() -> None:
    async with served(always(b":1\r\n")) as (script, commands):
        with pytest.raises(UnicodeEncodeError):
            await commands.ask(b"A", "\ud800")
        await wait_until(lambda: script.lost == 1)
        assert await commands.ask(b"A") == 1


class Timers(SystemClock):
    """Counts them."""

    def __init__(self) -> None:
        self.count = 0

    def later(self, seconds: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        self.count += 1
        return super().later(seconds, act)


async def test_one_timer_watches_over_all_commands() -> None:
    async with served(always(b":1\r\n")) as (_, untimed):
        clock = Timers()
        with closing(Commands(replace(untimed.endpoint, clock=clock))) as commands:
            for _ in range(50):
                await asyncio.gather(commands.ask(b"A"), commands.ask(b"A"))
        assert clock.count == 1
