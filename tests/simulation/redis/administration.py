"""Commands about the server itself: INFO, CONFIG, CLIENT, SCRIPT, and whatever else is no matter of keys."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tests.simulation.redis.keyspace import CLASSES, Keyspace
from tests.simulation.redis.values import OK, CommandError, Reply, Status

if TYPE_CHECKING:
    from tests.simulation.redis.server import Server, Session

_ALL = "g$lshzxetd"
_PONG = Status(b"PONG")


Own = Callable[["Server", "Session | None", Sequence[bytes]], Reply]


def _time(server: "Server", _: "Session | None", _words: Sequence[bytes]) -> Reply:
    seconds, rest = divmod(server.keyspace.now_us, 1_000_000)
    return [b"%d" % seconds, b"%d" % rest]


def _info(server: "Server", _: "Session | None", words: Sequence[bytes]) -> Reply:
    keys = server.keyspace
    sections = {
        "server": [*server.kind.info, f"run_id:{server.run_id}"],
        "replication": [f"role:{server.role}"],
        "persistence": [f"loading:{int(server.loading)}", f"rdb_last_load_keys_expired:{server.dropped_at_load}"],
        "stats": [
            f"total_connections_received:{server.connections_received}",
            f"total_commands_processed:{server.commands_processed}",
            f"expired_keys:{keys.expired_keys}",
            f"evicted_keys:{keys.evicted_keys}",
        ],
    }
    wanted = [word.decode().lower() for word in words[1:]] or list(sections)
    text = "\r\n".join(
        "".join(f"{line}\r\n" for line in [f"# {name.capitalize()}", *sections[name]])
        for name in sections
        if name in wanted
    )
    return text.encode()


def _config(server: "Server", _: "Session | None", words: Sequence[bytes]) -> Reply:
    act, name = words[1].upper(), words[2].lower()
    if act == b"GET":
        values = {
            b"notify-keyspace-events": shown_flags(server.keyspace.flags).encode(),
            b"databases": b"%d" % Keyspace.DATABASES,
        }
        return [name, values[name]] if name in values else []
    if act == b"SET" and name == b"notify-keyspace-events":
        flags = words[3].decode()
        if set(flags) - set(CLASSES) - set("AKE"):
            raise CommandError(
                "ERR CONFIG SET failed (possibly related to argument 'notify-keyspace-events') - Invalid event class"
                " character. Use 'Ag$lshzxeKEtmdn'."
            )
        server.keyspace.flags = flags
        return OK
    raise CommandError("ERR Unknown option or number of arguments for CONFIG SET")


def shown_flags(flags: str) -> str:
    """As CONFIG GET shows them."""
    known = set(flags)
    classes = "A" if "A" in known or set(_ALL) <= known else "".join(flag for flag in _ALL if flag in known)
    return classes + "".join(flag for flag in "KEmn" if flag in known)


def _client(server: "Server", session: "Session | None", words: Sequence[bytes]) -> Reply:
    name = words[1].upper()
    if session is None:
        return OK
    if name == b"SETNAME":
        session.name = words[2]
    elif name == b"ID":
        return session.id
    elif name == b"TRACKING":
        return server.tracking.turn_on(session, words)
    elif name == b"CACHING":
        return server.tracking.caching(session)
    elif name == b"NO-TOUCH" and not server.kind.knows_no_touch:
        raise CommandError("ERR unknown subcommand 'NO-TOUCH'. Try CLIENT HELP.")
    return OK


def _select(server: "Server", session: "Session | None", words: Sequence[bytes]) -> Reply:
    number = int(words[1])
    if not 0 <= number < Keyspace.DATABASES:
        raise CommandError("ERR DB index is out of range")
    if session is not None:
        session.database = server.keyspace.databases[number]
    return OK


def _script(server: "Server", _: "Session | None", words: Sequence[bytes]) -> Reply:
    act = words[1].upper()
    if act == b"LOAD":
        return server.load_script(words[2])
    if act == b"FLUSH":
        server.scripts.flush()
        return OK
    return [int(server.scripts.has(digest)) for digest in words[2:]]


def _flushall(server: "Server", _: "Session | None", _words: Sequence[bytes]) -> Reply:
    for database in server.keyspace.databases:
        for key in list(database.values):
            server.keyspace.drop(database, key)
    server.keyspace.invalidate_all()
    return OK


def _publish(server: "Server", _: "Session | None", words: Sequence[bytes]) -> Reply:
    return server.publish(words[1], words[2])


def _pubsub(server: "Server", _: "Session | None", words: Sequence[bytes]) -> Reply:
    if words[1].upper() != b"NUMSUB":
        raise CommandError(f"ERR unknown subcommand '{words[1].decode()}'. Try PUBSUB HELP.")
    reply: list[Reply] = []
    for channel in words[2:]:
        reply += [channel, server.listeners(channel)]
    return reply


OWN: dict[bytes, Own] = {
    b"PING": lambda _server, _session, words: words[1] if len(words) > 1 else _PONG,
    b"TIME": _time,
    b"INFO": _info,
    b"CONFIG": _config,
    b"CLIENT": _client,
    b"SELECT": _select,
    b"SCRIPT": _script,
    b"FLUSHALL": _flushall,
    b"PUBLISH": _publish,
    b"PUBSUB": _pubsub,
}
