"""Client-side caching, as the bridge uses it: a subscription is told of the first write of what a session has read.

`CLIENT TRACKING ON REDIRECT … OPTIN`: what is read by the command behind `CLIENT CACHING YES` counts. Keys are known by
their names alone, whatever their databases.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from tests.simulation.redis.resp import encode
from tests.simulation.redis.values import OK, CommandError, Reply

if TYPE_CHECKING:
    from tests.simulation.redis.server import Session

CHANNEL = b"__redis__:invalidate"
_NO_TRACKING = (
    "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled"
)


class Tracking:
    """That of one server."""

    def __init__(self, sessions: Callable[[], Iterable["Session"]], *, declared: bool) -> None:
        """`sessions`: those that there are. `declared`: whether of a script the keys count that it declares, not those
        that it reads.
        """  # noqa: D205 - one paragraph
        self._sessions = sessions
        self._declared = declared
        self._readers: dict[bytes, dict[int, None]] = {}
        """Of each key, the ids of those that are to be told."""
        self._executing: Session | None = None
        self._late: list[bytes | None] = []
        """What the session that executes a command has written itself: it is told behind that."""

    def _of(self, number: int) -> "Session | None":
        return next((session for session in self._sessions() if session.id == number), None)

    # What sessions ask for.

    def turn_on(self, session: "Session", words: Sequence[bytes]) -> Reply:
        """CLIENT TRACKING ON REDIRECT id OPTIN."""
        if [word.upper() for word in (*words[2:4], words[5])] != [b"ON", b"REDIRECT", b"OPTIN"]:
            raise CommandError("ERR syntax error")
        if self._of(int(words[4])) is None:
            raise CommandError("ERR The client ID you want redirect to does not exist")
        session.redirect = int(words[4])
        return OK

    def caching(self, session: "Session") -> Reply:
        """CLIENT CACHING YES."""
        if session.redirect is None:
            raise CommandError(_NO_TRACKING)
        session.caching = True
        return OK

    # What happens.

    def begin(self, session: "Session | None") -> None:
        """A command of its is executed."""
        self._executing = session

    def end(self, session: "Session | None", name: bytes) -> None:
        """It is over."""
        self._executing = None
        late, self._late = self._late, []
        for key in late:
            if session is not None:
                self._tell(session, key)
        if session is not None and name != b"CLIENT":
            session.caching = False

    def read(self, keys: Iterable[bytes], declared: Iterable[bytes] | None = None) -> None:
        """A command has read these keys. `declared`: those that its script does; None: it is none of a script's."""
        session = self._executing
        if session is not None and session.caching:
            keys = list(keys)
            for key in declared if keys and self._declared and declared is not None else keys:
                self._readers.setdefault(key, {})[session.id] = None

    def written(self, key: bytes) -> None:
        """It was, or it is gone."""
        for number in self._readers.pop(key, ()):
            if (session := self._of(number)) is not None:
                self._to(session, key)

    def flushed(self) -> None:
        """All keys of a database are gone."""
        self._readers.clear()
        for session in self._sessions():
            if session.redirect is not None:
                self._to(session, None)

    def forget(self) -> None:
        """The server starts: nothing was read of it."""
        self._readers.clear()

    def overflow(self) -> None:
        """There are too many keys: all are forgotten, which is told as if they were written."""
        for key in list(self._readers):
            self.written(key)

    def _to(self, session: "Session", key: bytes | None) -> None:
        if session is self._executing:
            self._late.append(key)
        else:
            self._tell(session, key)

    def _tell(self, session: "Session", key: bytes | None) -> None:
        target = None if session.redirect is None else self._of(session.redirect)
        if target is not None and target.channels:
            target.reply(encode([b"message", CHANNEL, None if key is None else [key]]))
