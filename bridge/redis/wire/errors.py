"""The client library's exceptions and Redis's error replies, as ours: the one place that translates them.

Guarantees: no message holds a secret, and no message holds a key unless Redis itself repeats one.
"""

import ssl
from collections.abc import Iterator

import redis.exceptions as client

from bridge.errors import BridgeError, ErrorKind, NotConnected, Refused, Unusable
from bridge.redis.wire.endpoint import CLUSTER, Endpoint
from bridge.redis.wire.handshake import FULL, HungUp
from bridge.redis.wire.logins import NoLogin


class Fenced(BridgeError):
    """The ledger refuses this epoch: another one holds the lease, or the lease is gone."""


_TRANSIENT = ("LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY ", "MISCONF", "NOREPLICAS", "UNBLOCKED")
"""Answers of a server that is up, but cannot serve just now."""
_TOO_LARGE = "Protocol error"
"""How a server answers a query that is larger than it accepts. It then closes the connection."""
_KINDS = {"MISCONF": ErrorKind.DISK, "maxmemory": ErrorKind.MEMORY, "NOREPLICAS": ErrorKind.REPLICAS}
"""The kind, by a word of the answer."""
_UNKNOWN = ("unknown command", "unknown redis command")
"""The latter from a script."""
_DENIALS = ("noperm", "no permissions", "acl failure", "can't run this command")
"""Redis 7.0 says "no permissions", Valkey "No permissions"."""


def translated(endpoint: Endpoint, error: Exception) -> BridgeError:
    """What an exception of the client library, or of the connection, means for the caller."""
    if isinstance(error, client.AuthenticationError):
        return login_refused(endpoint, str(error))
    if isinstance(error, client.ConnectionError | client.TimeoutError | OSError):
        return connection_failed(endpoint, error, answered=not isinstance(error, HungUp))
    if isinstance(error, client.ResponseError):
        return _response(endpoint, error)
    no_redis = Refused(f"{endpoint.title} does not answer like a Redis server", "check BRIDGE_REDIS_URL")
    return opening_failed(endpoint, error, answered=True) or no_redis


def _response(endpoint: Endpoint, error: client.ResponseError) -> BridgeError:
    """The library removes the first word of the errors for which it has a class."""
    match error:
        case client.AskError():  # MOVED is one of them
            return _not_served_here(endpoint, error)
        case client.ClusterDownError():  # MASTERDOWN is one of them
            return NotConnected(f"{endpoint.title} cannot serve now: {error}", kind=ErrorKind.CLUSTER_DOWN)
        case client.TryAgainError():
            return NotConnected(f"{endpoint.title} cannot serve now: {error}")
        case client.ReadOnlyError():
            return is_replica(endpoint)
    return error_reply(endpoint, str(error))


def connection_failed(endpoint: Endpoint, error: BaseException, *, answered: bool) -> Unusable:
    """A connection that could not be made, or broke; `answered`: whether it had worked before."""
    if FULL in str(error):
        return _full(endpoint)
    if opening := opening_failed(endpoint, error, answered=answered):
        return opening
    if any(isinstance(cause, ConnectionRefusedError) for cause in _chain(error)):
        return NotConnected(f"{endpoint.title} cannot be reached: the connection is refused")
    return NotConnected(f"{endpoint.title}: {str(error) or type(error).__name__}")


def opening_failed(endpoint: Endpoint, error: BaseException, *, answered: bool) -> Unusable | None:
    """What `error` says about opening a connection; None if it is about something else.

    The client library wraps errors. The one that counts is somewhere in the chain of causes.
    """
    certificates = endpoint.certificates()
    for cause in _chain(error):
        if isinstance(cause, Refused | NoLogin):
            return cause
        if (
            isinstance(cause, ssl.SSLError)
            and certificates is not None
            and (refused := certificates.handshake_refused(cause, endpoint.title))
        ):
            return refused
        if isinstance(cause, ConnectionAbortedError) and "handshake" in str(cause):
            asked = "which rediss:// in BRIDGE_REDIS_URL asks for"
            return NotConnected(f"{endpoint.title} does not start TLS, {asked}", "check its port")
    if answered:
        return None
    found = f"{endpoint.title} closed the connection before it answered"
    if certificates is not None:
        wants = "it may require a client certificate, or a different one"
        return NotConnected(f"{found}; {wants}", f"check {certificates.certificate}")
    return NotConnected(
        f"{found}; it may require TLS, or have reached its limit of clients",
        "set BRIDGE_REDIS_URL to a rediss:// URL, or raise maxclients",
    )


def _full(endpoint: Endpoint) -> NotConnected:
    return NotConnected(f"{endpoint.title} has reached its limit of clients", "raise its maxclients")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def error_reply(endpoint: Endpoint, answer: str) -> BridgeError:
    """What an error reply of Redis means for the caller."""
    if answer.startswith(("FENCED", "LEASELOST")):
        return Fenced(answer.partition(" ")[2])
    kind = next((kind for word, kind in _KINDS.items() if word in answer), ErrorKind.OTHER)
    if answer.startswith((*_TRANSIENT, _TOO_LARGE)):
        return NotConnected(f"{endpoint.title}: {answer}", kind=kind)
    if FULL in answer:
        return _full(endpoint)
    if "READONLY" in answer or "read only replica" in answer:
        return is_replica(endpoint)
    if "DB index is out of range" in answer:
        return Refused(
            f"{endpoint.title} has no database {endpoint.db}",
            "name another one at the end of the URL, or raise `databases` in the configuration of Redis",
        )
    return _refusal(endpoint, answer, kind)


def _refusal(endpoint: Endpoint, answer: str, kind: ErrorKind) -> Refused:
    """What an error means that will not go away without an operator."""
    if answer.startswith("IMPORTING"):
        found = f"{endpoint.title} is in import mode: it hides keys that are past their deadline, and expires none"
        return Refused(found, "finish the import, then CONFIG SET import-mode no")
    if "WRONGTYPE" in answer or answer.startswith("DAMAGED"):
        settings = endpoint.settings
        pattern = f"{{{settings.namespace}:{endpoint.db}:*"
        return Refused(
            f"a key of the bridge's own in {endpoint.title} is not what a bridge writes ({answer})",
            f"rename it, having found it with TYPE among those that match {pattern}, or set another BRIDGE_NAMESPACE",
        )
    if "not allowed in cluster mode" in answer:
        return is_cluster_node(endpoint, f" ({answer})")
    if any(word in answer.lower() for word in _UNKNOWN):
        return Refused(
            f"{endpoint.title} has no command that the bridge needs ({answer})",
            "undo its rename-command, or ask the provider to allow it",
            ErrorKind.DENIED,
        )
    if any(word in answer.lower() for word in _DENIALS):
        return Refused(
            f"{endpoint.title} does not permit what the bridge needs ({answer})",
            "widen the ACL of its user (`expiry-bridge check` says by what)",
            ErrorKind.DENIED,
        )
    return Refused(f"{endpoint.title} answers: {answer}", kind=kind)


def login_refused(endpoint: Endpoint, answer: str) -> Unusable:
    """Redis refused the login. It may accept the next one that a credentials provider gives."""
    kind = Refused if endpoint.logins is None else NotConnected
    return kind(f"{endpoint.title} refuses the login ({answer})", f"check {endpoint.login}")


def is_replica(endpoint: Endpoint, role: str = "") -> Unusable:
    """It is a replica. That is final if the settings name it; if a finder does, it may be promoted."""
    found = f"{endpoint.title} is a replica{role}: only a primary expires keys"
    if endpoint.finder:
        return NotConnected(f"{found}; {endpoint.finder} will name the primary")
    return Refused(found, "point BRIDGE_REDIS_URL at the primary")


def is_cluster_node(endpoint: Endpoint, why: str = "") -> Refused:
    """The settings name it as a single server, but it is part of a cluster."""
    return Refused(f"{endpoint.title} is a node of a cluster{why}", f"set BRIDGE_REDIS_URL to {cluster_url(endpoint)}")


def cluster_url(endpoint: Endpoint) -> str:
    """What the settings must say instead of naming one of its nodes."""
    return f"redis{'s' * endpoint.tls}+cluster://{'host:port' if endpoint.path else endpoint}"


def _not_served_here(endpoint: Endpoint, error: client.AskError) -> Unusable:
    """A node of a cluster does not serve this key now."""
    if endpoint.finder == CLUSTER:
        return NotConnected(f"{endpoint.title} does not serve the bridge's keys now: {error}")
    return is_cluster_node(endpoint, f" ({error})")
