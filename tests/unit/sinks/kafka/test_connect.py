"""How the end of an attempt to connect to Kafka is told, and a producer thrown away."""

import asyncio
import ssl
from types import SimpleNamespace

import pytest
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
