"""How the end of an attempt to connect to Kafka is told, and a producer thrown away."""

import asyncio
import ssl
import struct
from contextlib import suppress
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    CoordinatorNotAvailableError,
    IncompatibleBrokerVersion,
    KafkaConnectionError,
)

from bridge.clock import SystemClock
from bridge.errors import BridgeError, NotConnected, Refused
from bridge.limits import KafkaLimits
from bridge.settings import Settings
from bridge.sinks.kafka import connect


def caused(cause: BaseException) -> KafkaConnectionError:
    error = KafkaConnectionError("closed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ConnectionRefusedError(111, "Connection refused"), NotConnected, "cannot be reached: Connection refused"),
        (OSError("Multiple exceptions: …"), NotConnected, "cannot be reached: Multiple exceptions: …"),
        (TimeoutError(), NotConnected, "cannot be reached: no answer"),
        (
            ssl.SSLEOFError(8, "EOF"),
            NotConnected,
            "closed the connection: check whether its listener is one for PLAINTEXT",
        ),
        (caused(asyncio.IncompleteReadError(b"", 4)), NotConnected, "closed the connection"),
        (caused(ssl.SSLError(1, "alert")), Refused, "no TLS with Kafka at k:1 (handshake failed)"),
        (IncompatibleBrokerVersion("x"), Refused, "Kafka 3 or newer is needed"),
        (UnicodeError("label empty or too long"), Refused, "BRIDGE_KAFKA_BOOTSTRAP_SERVERS"),
        (ValueError("Server sent wrong signature!"), Refused, "BRIDGE_KAFKA_SASL_PASSWORD"),
    ],
)
def test_a_failed_greeting_is_told_in_our_words(error: BaseException, kind: type[BridgeError], text: str) -> None:
    told = connect._translated(error, "k:1", Settings())
    assert type(told) is kind
    assert text in str(told)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ClusterAuthorizationFailedError(), Refused, "may not write to any topic"),
        (IncompatibleBrokerVersion("x"), Refused, "no idempotent producers"),
        (CoordinatorNotAvailableError(), NotConnected, "error 15"),
        (TimeoutError(), NotConnected, "advertised.listeners"),
    ],
)
def test_a_producer_that_does_not_start_is_told_in_our_words(
    error: BaseException, kind: type[BridgeError], text: str
) -> None:
    told = connect._not_started(error, "k:1")
    assert type(told) is kind
    assert text in str(told)


@pytest.mark.parametrize("how", ["ends", "fails", "hangs"])
async def test_a_producer_of_another_version_is_asked_to_stop_within_bounds(how: str) -> None:
    asked = False

    async def stop() -> None:
        nonlocal asked
        asked = True
        if how == "fails":
            raise RuntimeError
        if how == "hangs":
            await asyncio.Event().wait()

    await connect.discard(SimpleNamespace(client=SimpleNamespace(), stop=stop), SystemClock(), KafkaLimits(close=0.05))
    assert asked


async def test_a_consumer_whose_start_is_cancelled_leaves_no_connection() -> None:
    asked, closed = asyncio.Event(), asyncio.Event()
    api_versions, metadata = 18, 3

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A broker that says what it knows, and then never answers."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                kind, _, correlation = struct.unpack(">hhi", (await reader.readexactly(size))[:8])
                if kind != api_versions:
                    asked.set()
                    continue
                known = struct.pack(">hihhhhhh", 0, 2, api_versions, 0, 0, metadata, 0, 5)
                writer.write(struct.pack(">ii", 4 + len(known), correlation) + known)
        closed.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        consumer = AIOKafkaConsumer(bootstrap_servers=f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        starting = asyncio.create_task(connect.begin(consumer))
        await asyncio.wait_for(asked.wait(), 30)
        starting.cancel()
        await asyncio.wait([starting])
        await consumer.stop()
        await asyncio.wait_for(closed.wait(), 30)

    assert starting.cancelled()
