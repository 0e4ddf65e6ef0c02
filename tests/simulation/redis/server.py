"""A simulated Redis server: sessions, subscriptions, scripts, configuration, and what goes wrong with it.

Faithful where the bridge can see it, and held to that by `test_fidelity.py`; deterministic. It takes no time: a command
is done at the moment at which it arrives, unless the server is frozen or busy.
"""

import random
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from bridge.redis.ledger.assembly import names, script
from bridge.sinks.redis.script import text
from tests.simulation.redis.administration import OWN
from tests.simulation.redis.commands import Command, commands, unknown
from tests.simulation.redis.keyspace import Database, Keyspace
from tests.simulation.redis.kinds import KINDS
from tests.simulation.redis.resp import Requests, encode
from tests.simulation.redis.scripting import Interpreter, Scripts
from tests.simulation.redis.tracking import Tracking
from tests.simulation.redis.values import CommandError, Failure, Reply
from tests.simulation.redis.watcher import Watcher

BUSY = b"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
LOADING = b"LOADING Redis is loading the dataset in memory"
_ELSEWHERE = re.compile(rb"__keyevent@(?!0__)")
OOM = "OOM command not allowed when used memory > 'maxmemory'."


@lru_cache(maxsize=1)
def interpreter() -> Interpreter:
    """The one Lua of this process."""
    return Interpreter()


@lru_cache(maxsize=1)
def shipped() -> dict[str, str]:
    """The bridge's own scripts: source → name."""
    return {**{script(name): f"{name}.lua" for name in names()}, text(): "append.lua"}


class Session:
    """One connection."""

    def __init__(self, server: "Server", reply: Callable[[bytes], None], hang_up: Callable[[], None]) -> None:
        self.id = server.connections_received + 1
        self.name = b""
        self.redirect: int | None = None
        """Which session is told of what this one has read; None: it is not tracked."""
        self.caching = False
        """Whether it is tracked what the next command reads."""
        self.channels: dict[bytes, None] = {}
        self.database = server.keyspace.databases[0]
        self.reply = reply
        self.hang_up = hang_up
        self.server = server
        self._requests = Requests()

    def received(self, data: bytes) -> None:
        """See `Peer`."""
        self.server.receive(self, data)

    def gone(self) -> None:
        """See `Peer`."""
        self.server.drop(self)

    def handle(self, data: bytes) -> None:
        """Do the commands that are complete, and answer them in one write."""
        out: list[bytes] = []
        for words in self._requests.feed(data):
            out += map(encode, self.server.execute(self, words))
        if out:
            self.reply(b"".join(out))


class Server:
    """See the module."""

    def __init__(
        self,
        clock_us: Callable[[], int],
        rng: random.Random,
        *,
        kind: str = "redis",
        flags: str = "",
        run_id: str = "0",
        confined: bool = False,
    ) -> None:
        """`kind`: see `KINDS`. `flags`: what the configuration file sets. `confined`: no client may hear the channels
        of other databases.
        """  # noqa: D205 - one paragraph
        self.kind = KINDS[kind]
        self.run_id = run_id
        self._confined = confined
        self.watcher = Watcher()
        self.sessions: list[Session] = []
        self.role = "master"
        self.frozen = False
        """It answers nothing, and does what has arrived afterwards."""
        self.busy = self.loading = self.out_of_memory = False
        self.writes_paused = False
        """CLIENT PAUSE … WRITE."""
        self.offset_us = 0
        """Of its clock, against the world's."""
        self.dropped_at_load = 0
        self.commands_processed = self.connections_received = 0
        self._machine_us = clock_us
        self.rng = rng
        self._configured = flags
        self._waiting: list[tuple[Session, bytes]] = []
        self._paused: list[tuple[Session, list[bytes]]] = []
        self._subscribers: dict[bytes, dict[Session, None]] = {}
        self._in_script = False
        self._wrote = False
        self.keyspace = Keyspace(lambda: clock_us() + self.offset_us, self.publish)
        self.keyspace.flags = flags
        self.keyspace.on_end = self._ended
        self.keyspace.on_write = self._changed
        self.tracking = Tracking(lambda: self.sessions, declared=self.kind.tracks_declared)
        self.keyspace.invalidate = self.tracking.written
        self.keyspace.invalidate_all = self.tracking.flushed
        self.scripts = Scripts(interpreter())
        self._commands = commands(self.keyspace, self.kind)
        self._names: dict[bytes, str] = {}

    # Connections.

    def accept(self, reply: Callable[[bytes], None], hang_up: Callable[[], None]) -> Session:
        """See `Listener`."""
        session = Session(self, reply, hang_up)
        self.sessions.append(session)
        self.connections_received += 1
        return session

    def drop(self, session: Session) -> None:
        """It is over."""
        if session in self.sessions:
            self.sessions.remove(session)
        for channel in session.channels:
            self._subscribers[channel].pop(session, None)

    def disconnect(self, sessions: Iterable[Session]) -> None:
        """End connections, as CLIENT KILL does."""
        for session in list(sessions):
            self.drop(session)
            session.hang_up()

    def receive(self, session: Session, data: bytes) -> None:
        """Bytes have arrived."""
        if self.frozen:
            self._waiting.append((session, data))
        elif session in self.sessions:
            session.handle(data)

    def thaw(self) -> None:
        """Go on."""
        self.frozen = False
        waiting, self._waiting = self._waiting, []
        for session, data in waiting:
            self.receive(session, data)

    def pause_writes(self, *, paused: bool) -> None:
        """CLIENT PAUSE, or UNPAUSE."""
        self.writes_paused = self.keyspace.expiry_paused = paused
        if not paused:
            waiting, self._paused = self._paused, []
            for session, words in waiting:
                if session in self.sessions:
                    session.reply(b"".join(map(encode, self.execute(session, words))))

    # Commands.

    def user(self, *words: bytes | str | int, database: int = 0) -> Reply:
        """A command of somebody else's, who is not slowed down by the network. Errors are replies."""
        command = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        if self.busy or self.loading or self.frozen or (self.writes_paused and self._may_write(command[0])):
            return Failure(b"")
        return self._one(None, self.keyspace.databases[database], command)

    def execute(self, session: Session, words: list[bytes]) -> list[Reply]:
        """The replies; none where it is done later."""
        name = words[0].upper()
        self.commands_processed += 1
        if self.busy or self.loading:
            return [Failure(BUSY if self.busy else LOADING)]
        if name == b"SUBSCRIBE":
            if self._confined and any(_ELSEWHERE.match(channel) for channel in words[1:]):
                return [Failure(b"NOPERM No permissions to access a channel")]
            return [self._subscribe(session, channel) for channel in words[1:]]
        if session.channels:
            return [[b"pong", b""] if name == b"PING" else Failure(b"ERR Can't execute it in subscriber mode")]
        return self._ask(session, name, words)

    def _ask(self, session: Session, name: bytes, words: list[bytes]) -> list[Reply]:
        if self._paused or (self.writes_paused and self._may_write(name)):
            self._paused.append((session, words))
            return []
        if name == b"EVALSHA" and not self.watcher.before(self.script_name(words[1]), session, words):
            return []
        return [self._one(session, session.database, words)]

    def script_name(self, digest: bytes) -> str:
        """Of one of the bridge's own; `?` for another one."""
        return self._names.get(digest.lower(), "?")

    def _may_write(self, name: bytes) -> bool:
        command = self._commands.get(name)
        return name == b"EVALSHA" or (command is not None and command.writes)

    def _one(self, session: Session | None, database: Database, words: list[bytes]) -> Reply:
        """From its beginning to its end: time stands still."""
        name = words[0].upper()
        self.keyspace.freeze()
        self.tracking.begin(session)
        script: str | None = None
        reply: Reply = None
        try:
            if name == b"EVALSHA":
                script = self.script_name(words[1])
                reply = self._script(database, words)
                return reply
            own = OWN.get(name)
            if own is not None:
                return own(self, session, words)
            return self._call(database, self._known(words), words, OOM)
        except CommandError as error:
            return Failure(str(error).encode("latin-1"))
        finally:
            self.tracking.end(session, name)
            self.keyspace.thaw()
            self.watcher.done(script, session, reply, words)

    def _known(self, words: Sequence[bytes]) -> Command:
        command = self._commands.get(words[0].upper())
        if command is None:
            raise unknown(words)
        return command

    def _call(
        self,
        database: Database,
        command: Command,
        words: Sequence[bytes],
        oom: str,
        declared: Sequence[bytes] | None = None,
    ) -> Reply:
        """`declared`: the keys of the script whose command it is."""
        if command.needs_memory and self.out_of_memory and not self._wrote:
            raise CommandError(oom)
        if command.writes and self.role != "master":
            raise CommandError("READONLY You can't write against a read only replica.")
        try:
            return command.handle(database, words[1:])
        except IndexError:
            raise CommandError(f"ERR wrong number of arguments for '{words[0].decode().lower()}' command") from None
        finally:
            self.tracking.read(command.reads(words), declared)

    def _script(self, database: Database, words: Sequence[bytes]) -> Reply:
        declared = words[3 : 3 + int(words[2])]

        def call(said: list[bytes]) -> Reply:
            name = said[0].upper()
            if name in {b"TIME", b"INFO", b"PUBLISH", b"PUBSUB"}:
                return OWN[name](self, None, said)
            command = self._known(said)
            reply = self._call(database, command, said, OOM, declared)
            self._wrote = self._wrote or command.writes
            if name == b"PEXPIRETIME":
                self.watcher.read(said[1], reply)
            return reply

        self._wrote = False
        try:
            return self.scripts.run(words[1], words[2:], call)
        finally:
            self._wrote = False

    # Subscriptions.

    def _subscribe(self, session: Session, channel: bytes) -> Reply:
        session.channels[channel] = None
        self._subscribers.setdefault(channel, {})[session] = None
        return [b"subscribe", channel, len(session.channels)]

    def listeners(self, channel: bytes) -> int:
        """How many sessions have subscribed it."""
        return len(self._subscribers.get(channel, {}))

    def publish(self, channel: bytes, message: bytes) -> int:
        """To whom has subscribed it: how many those are."""
        sessions = self._subscribers.get(channel, {})
        for session in list(sessions):
            session.reply(encode([b"message", channel, message]))
        return len(sessions)

    # Its own life.

    def _ended(self, database: Database, key: bytes, how: str) -> None:
        self.watcher.ended(database, key, how)

    def _changed(self, database: Database, key: bytes) -> None:
        self.watcher.changed(database, key)

    @property
    def clock_ms(self) -> int:
        """Its clock now."""
        return (self._machine_us() + self.offset_us) // 1000

    def late(self, session: Session, words: list[bytes]) -> None:
        """Do what has arrived long ago; who asked is gone."""
        if not (self.frozen or self.busy or self.loading or self.writes_paused):
            self._one(session, session.database, words)

    def restart(self, run_id: str) -> None:
        """It was killed, and starts: connections, scripts, counters and CONFIG SET are gone; the data is as it was."""
        self.disconnect(self.sessions)
        self._waiting.clear()
        self._paused.clear()
        self.run_id = run_id
        self.scripts.flush()
        self.tracking.forget()
        self.frozen = self.busy = self.writes_paused = self.keyspace.expiry_paused = False
        self.keyspace.flags = self._configured
        self.keyspace.expired_keys = self.keyspace.evicted_keys = 0
        self.commands_processed = self.connections_received = 0

    def load_script(self, source: bytes) -> bytes:
        """SCRIPT LOAD."""
        digest = self.scripts.load(source)
        self._names[digest] = shipped().get(source.decode(), "?")
        return digest

    def cycle(self, share: float) -> None:
        """The active expiry cycle."""
        if not (self.frozen or self.busy or self.loading):
            self.keyspace.freeze()
            self.keyspace.cycle(self.rng, share)
            self.keyspace.thaw()
            self.watcher.done(None, None)
