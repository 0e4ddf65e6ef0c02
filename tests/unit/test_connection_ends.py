"""A server that hangs up without a word: what it may have wanted is guessed, and said to be a guess."""

import ssl

import pytest
from nats.errors import NoServersError, UnexpectedEOF
from redis.exceptions import ResponseError

from bridge.errors import NotConnected, Refused
from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.errors import connection_failed, opening_failed, translated
from bridge.redis.wire.handshake import HungUp
from bridge.settings import Settings
from bridge.sinks.jetstream import connect

REDIS = Endpoint.of(Settings(redis_url="redis://r:1"))
SECURE = Endpoint.of(Settings(redis_url="rediss://r:1"))


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), BrokenPipeError(32, "pipe"), UnexpectedEOF()])
def test_a_nats_server_that_hangs_up_over_tls_may_want_a_certificate(error: Exception) -> None:
    told = connect._translated([error, NoServersError()], "n:1", encrypted=True)
    assert isinstance(told, NotConnected)
    assert "may require a client certificate" in str(told)
    assert "BRIDGE_NATS_TLS_CERT_FILE" in str(told)

    told = connect._translated([error, NoServersError()], "n:1", encrypted=False)
    assert isinstance(told, NotConnected)
    assert "certificate" not in str(told)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "the connection is refused"),
        (TimeoutError(), "no answer"),
        (OSError("Name or service not known"), "Name or service not known"),
    ],
)
def test_a_nats_server_that_cannot_be_reached_is_told_of_in_words(error: Exception, words: str) -> None:
    told = connect._translated([error, NoServersError()], "n:1", encrypted=False)
    assert isinstance(told, NotConnected)
    assert str(told) == f"NATS at n:1 cannot be reached: {words}"


def test_a_database_that_redis_does_not_have_is_named() -> None:
    endpoint = Endpoint.of(Settings(redis_url="redis://r:1/99"))
    told = translated(endpoint, ResponseError("DB index is out of range"))
    assert isinstance(told, Refused)
    assert "Redis at r:1 has no database 99: name another one at the end of the URL" in str(told)


@pytest.mark.parametrize(
    ("endpoint", "what"),
    [(SECURE, "BRIDGE_REDIS_TLS_CERT_FILE"), (REDIS, "set BRIDGE_REDIS_URL to a rediss:// URL, or raise maxclients")],
)
def test_a_redis_that_hangs_up_may_want_what_it_did_not_get(endpoint: Endpoint, what: str) -> None:
    told = opening_failed(endpoint, HungUp("Connection closed by server."), answered=False)
    assert isinstance(told, NotConnected)
    assert "may require" in str(told)
    assert what in str(told)


def test_a_redis_that_is_lost_later_is_just_lost() -> None:
    assert opening_failed(SECURE, ConnectionResetError(104, "reset"), answered=True) is None
    assert opening_failed(SECURE, ssl.SSLEOFError(8, "EOF occurred"), answered=True) is None


def test_a_redis_that_is_not_there_is_named_once_without_the_words_of_the_library() -> None:
    wrapped = ConnectionError("Error 111 connecting to r:1. Connect call failed ('r', 1).")
    wrapped.__cause__ = ConnectionRefusedError(111, "Connect call failed ('r', 1)")
    told = connection_failed(REDIS, wrapped, answered=True)
    assert str(told) == "Redis at r:1 cannot be reached: the connection is refused"


def test_what_redis_would_not_have_is_found_wherever_the_library_has_put_it() -> None:
    wrapped = ConnectionError("wrapped")
    wrapped.__cause__ = OSError()
    wrapped.__cause__.__context__ = Refused("the file is gone")
    assert str(opening_failed(REDIS, wrapped, answered=True)) == "the file is gone"
