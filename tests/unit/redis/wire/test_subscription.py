"""The notification session, against a server at the byte level that says what the tests want it to say."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from bridge.clock import SystemClock
from bridge.endings import Ending
from bridge.errors import NotConnected, Refused
from bridge.limits import WireLimits
from bridge.redis.protocol.inbox import Inbox
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.subscription import Subscription, subscribe
from bridge.settings import Settings
from tests.support.redis.notifications import CHANNELS, CONFIRMED, confirmation, hint
from tests.support.servers import wait_until


class Script:
    """A server: says `greeting` to the first thing it hears, then what it is told to; answers PINGs while `alive`."""

    def __init__(self, greeting: bytes) -> None:
        self.greeting = greeting
        self.alive = True
        self.heard = b""
        self.writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        try:
            while data := await reader.read(65536):
                greeted, self.heard = bool(self.heard), self.heard + data
                if not greeted:
                    writer.write(self.greeting)
                elif self.alive and b"PING" in data:
                    writer.write(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")
        except ConnectionError:
            pass
        finally:
            writer.close()

    def say(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)

    def hang_up(self) -> None:
        assert self.writer is not None
        self.writer.close()


@asynccontextmanager
async def served(
    script: Script, password: str | None = None, limits: WireLimits | None = None
) -> AsyncIterator[Endpoint]:
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    login = f":{password}@" if password else ""
    async with server:
        yield Endpoint.of(Settings(redis_url=f"redis://{login}127.0.0.1:{port}/0"), limits)
        if script.writer is not None:
            script.writer.transport.abort()


async def opened(endpoint: Endpoint, inbox: Inbox, wake: Callable[[], None] = lambda: None) -> Subscription:
    return await subscribe(endpoint, CHANNELS, inbox, wake)


async def test_hints_are_kept_from_the_last_confirmation_on() -> None:
    greeting = b"+OK\r\n" + b"".join(
        confirmation(channel, n + 1) + hint(b"%d" % n) for n, channel in enumerate(CHANNELS)
    )
    hints = Inbox(WireLimits())
    async with served(Script(greeting)) as endpoint:
        session = await opened(endpoint, hints)
        await wait_until(lambda: len(hints))

        assert [key for _, key in hints] == [b"%d" % (len(CHANNELS) - 1)]
        session.end("done")


async def test_bytes_split_anywhere_make_the_same_hints() -> None:
    script, hints = Script(CONFIRMED), Inbox(WireLimits())
    async with served(script) as endpoint:
        session = await opened(endpoint, hints)
        for byte in hint(b"a\r\nb\x00") + hint(b""):
            session.data_received(bytes([byte]))

        assert [key for _, key in hints] == [b"a\r\nb\x00", b""]
        session.end("done")


class Resting(SystemClock):
    """A clock by which a rest lasts until it is over."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        del seconds
        await self.over.wait()


async def test_what_comes_while_it_rests_is_taken_in_one_piece_and_is_there_when_that_is_over() -> None:
    script, hints, clock, woken = Script(CONFIRMED), Inbox(WireLimits()), Resting(), list[int]()
    async with served(script) as endpoint:
        session = await opened(replace(endpoint, clock=clock), hints, lambda: woken.append(len(hints)))
        resting = asyncio.create_task(session.rest(3600))
        for number in range(5):
            script.say(hint(b"%d" % number))
            await asyncio.sleep(0.01)
        assert not hints
        clock.over.set()
        await resting

        assert woken == [5]
        session.end("done")


async def test_a_session_that_ends_while_it_rests_stays_ended() -> None:
    script, hints, clock = Script(CONFIRMED), Inbox(WireLimits()), Resting()
    async with served(script) as endpoint:
        session = await opened(replace(endpoint, clock=clock), hints)
        resting = asyncio.create_task(session.rest(3600))
        await asyncio.sleep(0)
        session.end("done")
        clock.over.set()
        await resting
        clock.over.clear()
        await session.rest(3600)

        assert session.ended == "done"


@pytest.mark.parametrize(
    "garbage",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*-7\r\n", b"$99999999999999999999\r\n", b"\x00\xff\x00"],
)
async def test_what_is_not_the_protocol_ends_the_session_with_a_reason(garbage: bytes) -> None:
    script, hints = Script(CONFIRMED), Inbox(WireLimits())
    async with served(script) as endpoint:
        session = await opened(endpoint, hints)
        script.say(garbage)
        await wait_until(lambda: session.ended is not None)

        assert session.ended is not None
        assert "not its protocol" in session.ended
        assert session.ending is Ending.CONNECTION_LOST


async def test_the_session_ends_once_and_keeps_its_first_reason() -> None:
    woken, hints = asyncio.Event(), Inbox(WireLimits())
    script = Script(CONFIRMED)
    async with served(script) as endpoint:
        session = await opened(endpoint, hints, woken.set)
        woken.clear()
        script.hang_up()
        await woken.wait()
        first = session.ended
        session.end("something else", Ending.SHUTDOWN)

        assert session.ended == first == "Redis closed the connection"
        assert session.ending is Ending.CONNECTION_LOST


async def test_a_server_that_falls_silent_ends_the_session() -> None:
    script, hints = Script(CONFIRMED), Inbox(WireLimits())
    async with served(script, limits=WireLimits(ping=0.02, silence=0.2)) as endpoint:
        session = await opened(endpoint, hints)
        watch = asyncio.create_task(session.watch())
        await wait_until(lambda: script.heard.count(b"PING") > 3)
        assert not watch.done()

        script.alive = False
        await watch

        assert "said nothing" in str(session.ended)
        assert session.ending is Ending.SILENT


async def test_a_server_that_never_confirms_is_given_up() -> None:
    async with served(Script(b"+OK\r\n"), limits=WireLimits(subscribe=0.05)) as endpoint:
        with pytest.raises(NotConnected, match="no answer"):
            await opened(endpoint, Inbox(WireLimits()))


async def test_nobody_listening_is_not_connected() -> None:
    async with served(Script(b"")) as endpoint:
        pass
    with pytest.raises(NotConnected):
        await opened(endpoint, Inbox(WireLimits()))


async def test_hanging_up_before_the_confirmation_is_not_connected() -> None:
    script = Script(b"+OK\r\n")
    async with served(script) as endpoint:
        opening = asyncio.create_task(opened(endpoint, Inbox(WireLimits())))
        await wait_until(lambda: script.heard)
        script.hang_up()
        with pytest.raises(NotConnected, match="closed the connection"):
            await opening


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        (b"-WRONGPASS invalid username-password pair or user is disabled.\r\n", "BRIDGE_REDIS_PASSWORD"),
        (b"-NOAUTH Authentication required.\r\n", "BRIDGE_REDIS_PASSWORD"),
        (b"-NOPERM No permissions to access a channel\r\n", "ACL"),
    ],
)
async def test_a_refused_login_or_channel_says_how_to_fix_it_and_holds_no_secret(answer: bytes, remedy: str) -> None:
    async with served(Script(answer), password="s3cret") as endpoint:
        with pytest.raises(Refused, match=remedy) as caught:
            await opened(endpoint, Inbox(WireLimits()))
        assert "s3cret" not in str(caught.value)


async def test_a_server_that_is_loading_is_tried_again() -> None:
    async with served(Script(b"-LOADING Redis is loading the dataset in memory\r\n")) as endpoint:
        with pytest.raises(NotConnected, match="LOADING"):
            await opened(endpoint, Inbox(WireLimits()))


@pytest.mark.parametrize("limits", [WireLimits(backlog_hints=150), WireLimits(backlog_bytes=150)])
async def test_a_backlog_at_its_bound_ends_the_session_instead_of_filling_memory(limits: WireLimits) -> None:
    script, inbox = Script(CONFIRMED), Inbox(limits)
    async with served(script, limits=limits) as endpoint:
        session = await opened(endpoint, inbox)
        script.say(hint(b"key") * 50)
        await wait_until(lambda: len(inbox) == 50)
        ended_too_early = session.ended
        for _ in range(50):
            inbox.take()
        script.say(hint(b"key") * 151)
        await wait_until(lambda: session.ended is not None)

        assert ended_too_early is None
        assert session.ended is not None
        assert "backlog full" in session.ended
        assert session.ending is Ending.BACKLOG_FULL


async def test_the_password_is_read_anew_for_each_session(tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("secrets") / "password"
    secret.write_text("first\n")
    script = Script(b"+OK\r\n" + CONFIRMED)
    async with served(script) as endpoint:
        settings = Settings(redis_url=f"redis://{endpoint}/0", redis_password_file=secret)
        for password in ("first", "second"):
            secret.write_text(password)
            script.heard = b""
            session = await opened(Endpoint.of(settings), Inbox(WireLimits()))
            assert b"AUTH\r\n$%d\r\n%b\r\n" % (len(password), password.encode()) in script.heard
            session.end("done")
