"""The proxy is the tests' own tool: what it promises is tried on an echo server, a real Redis and a real NATS."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import nats
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.support.proxy import (
    TO_CLIENT,
    TO_SERVER,
    Action,
    Protocol,
    Proxy,
    Stream,
    command,
    is_subscriber,
    resp_arguments,
)
from tests.support.servers import NatsServer, RedisServer, wait_until

SOON = 5.0
A_WHILE = 0.1
"""How long we watch that something does *not* happen."""


@pytest.fixture
async def echo() -> AsyncIterator[Proxy]:
    """A proxy to a server that sends back what it receives."""

    async def send_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(100):
                writer.write(data)
        writer.transport.abort()

    server = await asyncio.start_server(send_back, "127.0.0.1")
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()


@contextlib.asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Stream]:
    """A client of the echo server, whose connection is known to be up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        yield reader, writer
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def redis_through(proxy: Proxy) -> AsyncIterator[Redis]:
    """A Redis client without retries."""
    no_retry = Retry(NoBackoff(), 0)
    async with Redis(port=proxy.port, protocol=2, socket_timeout=SOON, retry=no_retry) as client:
        yield client


@pytest.fixture
async def resp(redis_server: RedisServer) -> AsyncIterator[Proxy]:
    """A proxy to a real Redis."""
    async with Proxy(redis_server.port, Protocol.RESP) as proxy:
        yield proxy


async def stored(server: NatsServer) -> int:
    """How many messages the stream S holds, asked without the proxy."""
    client = await nats.connect(server.url)
    info = await client.jetstream().stream_info("S")
    await client.close()
    return info.state.messages


async def assert_silent(reader: asyncio.StreamReader) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), A_WHILE)


async def test_bytes_go_through_unchanged_both_ways(echo: Proxy) -> None:
    data = bytes(range(256)) * 10_000
    async with connected(echo) as (reader, writer):
        writer.write(data)
        assert await asyncio.wait_for(reader.readexactly(len(data)), SOON) == data


async def test_a_client_that_leaves_ends_its_connection(echo: Proxy) -> None:
    async with connected(echo):
        assert len(echo.connections) == 1
    await wait_until(lambda: not echo.connections)


async def test_cut_resets_the_client(echo: Proxy) -> None:
    async with connected(echo) as (reader, _):
        echo.cut()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), SOON)
    await wait_until(lambda: not echo.connections)


async def test_cut_spares_the_connections_that_were_not_chosen(echo: Proxy) -> None:
    async with connected(echo) as (first, _), connected(echo) as (second, writer):
        chosen = echo.connections[0]
        echo.cut(lambda connection: connection is chosen)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(first.read(), SOON)
        writer.write(b"still here")
        assert await asyncio.wait_for(second.readexactly(10), SOON) == b"still here"


async def test_a_connection_that_is_held_can_be_cut(echo: Proxy) -> None:
    async with connected(echo) as (reader, writer):
        echo.stall(TO_SERVER)
        writer.write(b"never arrives")
        await assert_silent(reader)
        echo.cut()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), SOON)


async def test_who_connects_while_it_refuses_is_refused_and_then_accepted_on_the_same_port(echo: Proxy) -> None:
    async with connected(echo) as (reader, writer):
        echo.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", echo.port)
        writer.write(b"open ones stay")
        assert await asyncio.wait_for(reader.readexactly(14), SOON) == b"open ones stay"
    await echo.accept()
    async with connected(echo):
        pass


async def test_a_connection_to_a_server_that_is_down_is_reset() -> None:
    async with Proxy(target=1) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), SOON)
        writer.transport.abort()


@pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT])
async def test_a_stall_holds_until_it_is_released(echo: Proxy, direction: object) -> None:
    async with connected(echo) as (reader, writer):
        stall = echo.stall(TO_SERVER if direction is TO_SERVER else TO_CLIENT)
        writer.write(b"held")
        await assert_silent(reader)
        stall.release()
        assert await asyncio.wait_for(reader.readexactly(4), SOON) == b"held"


async def test_a_stall_holds_the_end_of_a_connection_too(echo: Proxy) -> None:
    async with connected(echo) as (reader, writer):
        echo.stall(TO_CLIENT)
        writer.write_eof()
        await assert_silent(reader)
        echo.flow()
        assert await asyncio.wait_for(reader.read(), SOON) == b""


async def test_a_delay_takes_its_time(echo: Proxy) -> None:
    async with connected(echo) as (reader, writer):
        echo.delay = 0.05
        before = asyncio.get_running_loop().time()
        writer.write(b"slow")
        await asyncio.wait_for(reader.readexactly(4), SOON)
        assert asyncio.get_running_loop().time() - before >= 2 * 0.05


async def test_a_breakpoint_holds_a_command_before_redis_sees_it(resp: Proxy, redis_server: RedisServer) -> None:
    async with redis_through(resp) as client, Redis(port=redis_server.port) as direct:
        point = resp.break_on(TO_SERVER, command(b"set", lambda arguments: arguments[1] == b"k2"), Action.HOLD)
        await client.set("k1", "v")
        held = asyncio.ensure_future(client.set("k2", "v"))
        await point.reached()
        assert resp_arguments(point.frame) == [b"SET", b"k2", b"v"]
        assert not await direct.exists("k2")
        point.release()
        assert await held
        assert await direct.exists("k2")


async def test_a_breakpoint_holds_the_reply_of_exactly_its_command(resp: Proxy, redis_server: RedisServer) -> None:
    async with redis_through(resp) as client, Redis(port=redis_server.port) as direct:
        point = resp.break_on(TO_SERVER, command(b"INCRBY", lambda arguments: arguments[1] == b"b"), Action.HOLD_REPLY)
        pipeline = client.pipeline(transaction=False)
        for key in "abc":
            pipeline.incr(key)
        replies = asyncio.create_task(pipeline.execute())
        await point.reached()
        assert await direct.mget("a", "b", "c") == [b"1", b"1", b"1"]
        assert not replies.done()
        point.release()
        assert await replies == [1, 1, 1]


async def test_a_breakpoint_drops_the_reply_and_cuts_the_connection(resp: Proxy, redis_server: RedisServer) -> None:
    async with redis_through(resp) as client, Redis(port=redis_server.port) as direct:
        point = resp.break_on(TO_SERVER, command(b"INCRBY"), Action.CUT_REPLY)
        with pytest.raises(RedisConnectionError):
            await client.incr("n")
        await point.reached()
        assert await direct.get("n") == b"1", "executed once, although the client has not heard of it"


async def test_a_breakpoint_cuts_before_redis_sees_the_command(resp: Proxy, redis_server: RedisServer) -> None:
    async with redis_through(resp) as client, Redis(port=redis_server.port) as direct:
        resp.break_on(TO_SERVER, rb"\r\nINCRBY\r\n", Action.CUT)
        with pytest.raises(RedisConnectionError):
            await client.incr("n")
        assert not await direct.exists("n")
        assert await client.incr("n") == 1, "a breakpoint is reached once"


async def test_a_held_command_dies_with_its_connection(resp: Proxy, redis_server: RedisServer) -> None:
    async with redis_through(resp) as client:
        point = resp.break_on(TO_SERVER, command(b"SET"), Action.HOLD)
        held = asyncio.ensure_future(client.set("k", "v"))
        await point.reached()
        redis_server.kill()
        with pytest.raises(RedisConnectionError):
            await held
        redis_server.start()
        resp.flow()
        assert not await client.exists("k")


async def test_the_notification_stream_is_held_while_commands_go_through(resp: Proxy) -> None:
    async with redis_through(resp) as client, client.pubsub(ignore_subscribe_messages=True) as subscription:
        await subscription.subscribe("news")
        await subscription.get_message(timeout=SOON)
        assert [connection.subscriber for connection in resp.connections].count(True) == 1
        stall = resp.stall(TO_CLIENT, is_subscriber)
        assert await client.publish("news", "first") == 1
        assert await subscription.get_message(timeout=A_WHILE) is None
        assert await client.ping()
        stall.release()
        message = await subscription.get_message(timeout=SOON)
        assert message is not None
        assert message["data"] == b"first"


async def test_a_breakpoint_that_is_not_reached_says_what_was_missing(resp: Proxy) -> None:
    point = resp.break_on(TO_SERVER, command(b"SET"), Action.HOLD)
    with pytest.raises(TimeoutError, match="a frame that matches did not come"):
        await point.reached(timeout=0.01)


async def test_an_ack_of_jetstream_can_be_lost_alone(nats_server: NatsServer) -> None:
    async with Proxy(nats_server.port, Protocol.NATS) as proxy:
        client = await nats.connect(f"nats://127.0.0.1:{proxy.port}", allow_reconnect=False)
        stream = client.jetstream()
        await stream.add_stream(name="S", subjects=["s.*"])
        ack = proxy.break_on(TO_CLIENT, rb'\AMSG _INBOX.*"seq":2', Action.DROP)
        assert (await stream.publish("s.a", b"PUB s.fake 5\r\n")).seq == 1
        with pytest.raises(TimeoutError):
            await stream.publish("s.b", b"lost", timeout=A_WHILE)
        await ack.reached()
        assert (await stream.publish("s.c", b"")).seq == 3
        publication = proxy.break_on(TO_SERVER, rb"\APUB s\.d ", Action.HOLD)
        held = asyncio.create_task(stream.publish("s.d", b"held"))
        await publication.reached()
        assert (await stored(nats_server)) == 3
        proxy.flow()
        assert (await held).seq == 4
        await client.close()
