"""The HTTP port holds every client to its limits, and logs none of their faults."""

import asyncio
import json
import logging
import socket

import aiohttp
import pytest

from bridge.commands.embedded import free_port
from bridge.settings import Settings
from bridge.telemetry import logs
from bridge.telemetry.events import Telemetry
from bridge.telemetry.http import Limits, serve_http

FOREVER = 3600.0


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What came until the other side has closed."""
    async with asyncio.timeout(20):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def live(port: int, host: str = "127.0.0.1") -> int:
    async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}/livez") as response:
        return response.status


async def test_silent_connections_do_not_keep_a_probe_out() -> None:
    port = free_port()
    async with serve_http(Settings(http_port=port), Telemetry(), Limits(connections=4, seconds=FOREVER)):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]

        assert await live(port) == 200

        assert [await ended(reader) for reader, _ in silent[:8]] == [b""] * 8, "the oldest make room"
        for _, writer in silent:
            writer.transport.abort()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /livez HTTP/1.1\r\nHost: a\r\n",
        *(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for path in ("/metrics", "/", "/status.json")),
    ],
)
async def test_a_connection_lives_only_so_long(sent: bytes) -> None:
    port = free_port()
    async with serve_http(Settings(http_port=port), Telemetry(), Limits(seconds=0.2)):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        await ended(reader)
        writer.transport.abort()


async def test_a_header_without_end_is_cut_off() -> None:
    port = free_port()
    async with serve_http(Settings(http_port=port), Telemetry(), Limits(seconds=FOREVER)):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\n")
        try:
            for number in range(100_000):
                writer.write(b"X-%d: %s\r\n" % (number, b"a" * 1000))
                await writer.drain()
        except ConnectionError:
            pass
        else:
            pytest.fail("100 MB of headers were taken")
        await ended(reader)
        assert await live(port) == 200


@pytest.mark.parametrize(("path", "status"), [("/readyz", 503), ("/", 200), ("/status.json", 200), ("/else", 404)])
async def test_each_answer_is_the_last_of_its_connection(path: str, status: int) -> None:
    port = free_port()
    async with serve_http(Settings(http_port=port), Telemetry(), Limits(seconds=FOREVER)):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert (await ended(reader)).startswith(f"HTTP/1.1 {status} ".encode())
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)) + b"\r\n\r\n",
        b"hello there\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n\x00garbage\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"A: " + b"b" * 12_000 + b"\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    ],
)
async def test_garbage_is_not_logged(sent: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    port = free_port()
    async with serve_http(Settings(http_port=port), Telemetry(), Limits(seconds=2)):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        await ended(reader)
        writer.close()
        assert await live(port) == 200
    logs.flush(5)
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 on this machine")
async def test_the_unspecified_ipv6_address_serves_both_families() -> None:
    port = free_port()
    async with serve_http(Settings(http_host="::", http_port=port), Telemetry()):
        assert await live(port, "127.0.0.1") == 200
        assert await live(port, "[::1]") == 200


@pytest.mark.parametrize("library", ["asyncio", "aiohttp.server", "aiokafka.producer", "nats.aio.client"])
def test_what_other_libraries_log_is_a_line_in_the_format_of_ours(
    library: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", "json")
    logging.getLogger(library).critical("it %s", "broke", exc_info=RuntimeError("the\nreason"))

    logs.flush(5)
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["event"], line["library"], line["message"]) == ("library.failed", library, "it broke")
    assert line["level"] == "error"
    assert "RuntimeError: the\nreason" in line["exception"]
