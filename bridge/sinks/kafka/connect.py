"""One producer: how it is made and how it is thrown away.

Secrets and certificates are read each time, so that rotated ones need no restart. None appears in an error, nor leaves
in plain text where TLS was asked for. Every wait in here is bounded.
"""

import asyncio
import importlib.util
import logging
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.conn import AIOKafkaConnection, OAuthAuthenticator, collect_hosts
from aiokafka.errors import (
    BrokerResponseError,
    ClusterAuthorizationFailedError,
    IllegalSaslStateError,
    IncompatibleBrokerVersion,
    KafkaError,
    SaslAuthenticationFailed,
    TransactionalIdAuthorizationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from bridge.clock import Clock
from bridge.errors import BridgeError, ConfigurationError, ErrorKind, NotConnected, Refused
from bridge.limits import KafkaLimits
from bridge.settings import Settings
from bridge.sinks.kafka.leftovers import left_open
from bridge.sinks.kafka.tokens import NoToken, tokens_of
from bridge.tasks import end
from bridge.tls import ClientTls, abort

RETRY_MS = 100
MAX_BATCH_BYTES = 1 << 30
"""We do the accounting: a topic may take less than another."""

_CREDENTIALS = "BRIDGE_KAFKA_SASL_USERNAME and BRIDGE_KAFKA_SASL_PASSWORD"
_LOGIN_REMEDY = "check BRIDGE_KAFKA_SASL_MECHANISM and BRIDGE_KAFKA_SECURITY_PROTOCOL"
_TLS_REMEDY = "check BRIDGE_KAFKA_TLS_CA_FILE, BRIDGE_KAFKA_TLS_CERT_FILE and BRIDGE_KAFKA_TLS_KEY_FILE"
_VERSION_REMEDY = "check its version, Kafka 3 or newer is needed"
_NO_LOGIN = (UnsupportedSaslMechanismError, IllegalSaslStateError)
_MISFITS = (IncompatibleBrokerVersion, NotImplementedError)
"""What the library raises of a broker that does not know the requests."""


def require_compression(settings: Settings) -> None:
    """Raises ConfigurationError: `BRIDGE_KAFKA_COMPRESSION` needs a package that is not installed."""
    if settings.kafka_compression not in {"none", "gzip"} and importlib.util.find_spec("cramjam") is None:
        remedy = "pip install 'expiry-bridge[kafka-compression]'"
        problem = f"{settings.kafka_compression} needs a package that is not installed: {remedy}"
        raise ConfigurationError([f"BRIDGE_KAFKA_COMPRESSION: {problem}"])


async def connect(settings: Settings, clock: Clock, limits: KafkaLimits, **more: Any) -> Any:  # noqa: ANN401 - the library has no types
    """A started producer, with `more` options. It must be given to `discard` in the end.

    Raises NotConnected: no broker can be reached. Refused: one answered and will not have us.
    """
    # It names topics, and so parts of keys. Whatever matters of what it says, we say ourselves.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    options = _options(settings, clock, limits)
    server = await _greet(options, settings, clock, limits)
    producer = AIOKafkaProducer(
        **(options | {"bootstrap_servers": [server]}),
        enable_idempotence=True,
        acks="all",
        compression_type=None if settings.kafka_compression == "none" else settings.kafka_compression,
        max_batch_size=MAX_BATCH_BYTES,
        **({"retry_backoff_ms": RETRY_MS} | more),
    )
    try:
        async with clock.timeout(limits.start):
            await producer.start()
    except BaseException as error:
        for connection in left_open(error, AIOKafkaConnection):
            _abort(connection)
        await discard(producer, clock, limits)
        if not isinstance(error, OSError | KafkaError | NotImplementedError):
            raise
        raise _not_started(error, server) from None
    return producer


async def admitted(settings: Settings, clock: Clock, limits: KafkaLimits) -> dict[str, Any]:
    """The options of any other client: its one bootstrap server is the first of the settings' that lets us in.

    Raises as `connect` does.
    """
    options = _options(settings, clock, limits)
    return options | {"bootstrap_servers": [await _greet(options, settings, clock, limits)]}


async def begin(consumer: Any) -> None:  # noqa: ANN401 - the library has no types
    """Start it. What it has opened when it fails, or is cancelled, is closed: the library's `stop` forgets that."""
    try:
        await consumer.start()
    except BaseException as error:
        for connection in left_open(error, AIOKafkaConnection):
            _abort(connection)
        raise


async def discard(producer: Any, clock: Clock, limits: KafkaLimits) -> None:  # noqa: ANN401 - likewise
    """Give everything back that belongs to `producer`: within a few moments, whatever state it is in. Never raises.

    What was not sent yet is dropped. The library's own `stop()` would wait for ever for a broker that is down to take
    it, hence the looks behind its public names; where they do not exist, `stop()` is all there is.
    """
    client = producer.client
    try:
        owners = (producer._sender, producer._message_accumulator, client)  # noqa: SLF001 - see above
        connections = list(client._conns.values())  # noqa: SLF001 - see above
        producer._closed = True  # noqa: SLF001 - see above
    except AttributeError:
        with suppress(Exception):
            async with clock.timeout(limits.close):
                await producer.stop()
        return
    await end([task for task in asyncio.all_tasks() if any(_owner(task) is owner for owner in owners)])
    for waiter in _unheard(producer):
        if waiter is not None and waiter.done() and not waiter.cancelled():
            waiter.exception()  # read once, so that asyncio does not report it
    for connection in connections:
        _abort(connection)


def _unheard(producer: Any) -> Iterator[Any]:  # noqa: ANN401 - likewise
    """Futures that the library has failed, and that nothing awaits: of a fenced producer, of batches that it kept."""
    yield getattr(getattr(producer, "_txn_manager", None), "_transaction_waiter", None)
    for batches in getattr(producer._message_accumulator, "_batches", {}).values():  # noqa: SLF001 - see `discard`
        yield from (getattr(batch, "_drain_waiter", None) for batch in batches)


def _options(settings: Settings, clock: Clock, limits: KafkaLimits) -> dict[str, Any]:
    protocol = settings.kafka_security_protocol
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "client_id": "expiry-bridge",
        "request_timeout_ms": round(limits.request * 1000),
        "security_protocol": protocol,
    }
    if protocol in {"SSL", "SASL_SSL"}:
        options["ssl_context"] = _tls_context(settings)
    if protocol in {"SASL_PLAINTEXT", "SASL_SSL"}:
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        if settings.kafka_sasl_mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = tokens_of(settings, clock, limits)
        else:
            options["sasl_plain_username"] = settings.kafka_sasl_username
            options["sasl_plain_password"] = settings.secret("kafka_sasl_password")
    return options


def _tls_context(settings: Settings) -> ssl.SSLContext:
    return ClientTls(
        server="Kafka",
        variables="BRIDGE_KAFKA_TLS",
        address_variable="BRIDGE_KAFKA_BOOTSTRAP_SERVERS",
        plain="set BRIDGE_KAFKA_SECURITY_PROTOCOL=PLAINTEXT",
        ca_file=settings.kafka_tls_ca_file,
        cert_file=settings.kafka_tls_cert_file,
        key_file=settings.kafka_tls_key_file,
        key_password=lambda: settings.secret("kafka_tls_key_password"),
    ).context()


async def _greet(options: dict[str, Any], settings: Settings, clock: Clock, limits: KafkaLimits) -> str:
    """The first of the bootstrap servers that lets us in. The library would only say that none did, and not why."""
    failures: list[BridgeError] = []
    for server in settings.kafka_bootstrap_servers:
        try:
            async with clock.timeout(limits.greeting):
                await _meet(server, options)
        except (OSError, KafkaError, ValueError, *_MISFITS) as error:
            failures.append(_translated(error, server, settings))
            if isinstance(error, SaslAuthenticationFailed) and (tokens := options.get("sasl_oauth_token_provider")):
                tokens.forget()
        else:
            return server
    raise next((failure for failure in failures if isinstance(failure, Refused)), failures[0])


async def _meet(server: str, options: dict[str, Any]) -> None:
    ((host, port, _),) = collect_hosts([server])
    try:
        connection = _Greeting(host, port, **{name: options[name] for name in options.keys() - {"bootstrap_servers"}})
        await connection.connect()
    except BaseException as error:
        for writer in left_open(error, asyncio.StreamWriter):
            abort(writer.transport)
        raise
    try:
        await connection.send(MetadataRequest([]))
    finally:
        _abort(connection)


class _Greeting(AIOKafkaConnection):  # type: ignore[misc]  # the library has no types
    def authenticator_oauth(self) -> Any:  # noqa: ANN401 - likewise
        """See the library."""
        return _Hearing(sasl_oauth_token_provider=self._sasl_oauth_token_provider)


class _Hearing(OAuthAuthenticator):  # type: ignore[misc]  # likewise
    """One that lets the broker say that it refuses the token. The library's takes the announcement of it for a yes."""

    _heard = False

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        """See the library."""
        if payload and not self._heard:
            self._heard = True
            return b"\x01", True
        answer: tuple[bytes, bool] | None = await super().step(payload)
        return answer


def _translated(error: BaseException, server: str, settings: Settings) -> BridgeError:
    """What an attempt to talk to `server` ended with. A connection that breaks holds the reason in its cause."""
    kafka = f"Kafka at {server}"
    if isinstance(error, NoToken):
        return (Refused if error.refused else NotConnected)(error.found, error.remedy)
    for cause in (error, error.__cause__):
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = f"the certificate of {kafka} is not trusted ({cause.verify_message})"
            remedy = "check it, BRIDGE_KAFKA_TLS_CA_FILE and the host in BRIDGE_KAFKA_BOOTSTRAP_SERVERS"
            return Refused(why, remedy)
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            reason = getattr(cause, "reason", None) or "handshake failed"
            return Refused(f"no TLS with {kafka} ({reason})", _TLS_REMEDY)
    refuses, check = f"{kafka} refuses the credentials", f"check {_CREDENTIALS}"
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        refuses, check = f"{kafka} refuses the token", "check who issues it, for whom, and until when"
    for kinds, found, remedy in (
        ((SaslAuthenticationFailed,), refuses, check),
        ((UnicodeError,), f"{server} names no host", "check BRIDGE_KAFKA_BOOTSTRAP_SERVERS"),
        ((ValueError,), f"{kafka} does not prove that it knows the password", f"check {_CREDENTIALS}"),  # SCRAM
        (_NO_LOGIN, f"{kafka} does not offer this way to log in", _LOGIN_REMEDY),
        (_MISFITS, f"{kafka} does not understand us", _VERSION_REMEDY),
    ):
        if isinstance(error, kinds):
            return Refused(found, remedy)
    if isinstance(error, KafkaError | ConnectionResetError | ssl.SSLEOFError):
        asked = f"{settings.kafka_security_protocol} (BRIDGE_KAFKA_SECURITY_PROTOCOL)"
        return NotConnected(f"{kafka} closed the connection", f"check whether its listener is one for {asked}")
    return NotConnected(f"{kafka} cannot be reached: {getattr(error, 'strerror', None) or str(error) or 'no answer'}")


def _not_started(error: BaseException, server: str) -> BridgeError:
    if isinstance(error, ClusterAuthorizationFailedError):
        return Refused(
            "the Kafka user may not write to any topic", "allow it to (ACL operation Write)", ErrorKind.DENIED
        )
    if isinstance(error, TransactionalIdAuthorizationFailed):
        return Refused(
            "the Kafka user may not use the bridge's transactional ids",
            "allow it to (ACL operations Write and Describe on the transactional ids that begin with BRIDGE_NAMESPACE)",
            ErrorKind.DENIED,
        )
    if isinstance(error, _MISFITS):
        return Refused(f"Kafka at {server} has no idempotent producers", _VERSION_REMEDY)
    if isinstance(error, BrokerResponseError):
        why = f"{error.message}, error {error.errno}"
        return NotConnected(f"Kafka at {server} gives no producer id ({why})", "check the log of its brokers")
    found = f"Kafka at {server} answers, but the brokers that it names cannot be reached"
    return NotConnected(found, "check their advertised.listeners")


def _owner(task: asyncio.Task[Any]) -> object:
    """The `self` of the method that the task runs."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame.f_locals.get("self") if frame is not None else None


def _abort(connection: Any) -> None:  # noqa: ANN401 - likewise
    """Close it now: an orderly end would wait for a frozen broker to take what is unsent."""
    writer = getattr(connection, "_writer", None)
    if writer is not None:
        abort(writer.transport)
    connection.close()
