"""How our own sessions log in: what they send first, which answers belong to that, and another login later.

With a credentials provider, a session asks for the newer protocol (RESP3), in which a listening session may log in
anew. A server without that protocol ends the session when the login ends.
"""

from collections.abc import Sequence
from typing import Any

import hiredis

from bridge.redis.wire.endpoint import Endpoint
from bridge.redis.wire.logins import Login

_HELLO = (b"HELLO", b"3")
_UNWANTED = ("NOPERM", "ERR unknown command", "ERR unknown subcommand")
"""How Redis's refusals of a command begin."""
_TAKEN = b"OK"

Command = Sequence[bytes]


class SessionLogin:
    """See the module."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.pushed: type[list[Any]] = list
        """The type of messages and confirmations."""
        self._endpoint = endpoint
        self._login: Login | None = None
        self._first: Sequence[Command] = ()
        self._answers = 0
        self._renewing = False
        """Whether the answer to another login is awaited."""

    @property
    def renewable(self) -> bool:
        """Whether the session can log in anew while it lasts."""
        return self.pushed is not list

    @property
    def through(self) -> bool:
        """Whether all answers to the greeting have come, and one more after them."""
        return self._answers > len(self._first)

    def greeting(self, name: str, login: Login | None) -> Sequence[Command]:
        """Log in, and send the name. Redis may refuse the name."""
        self._login = login
        auth = [] if login is None else [_auth(login)]
        newer = [] if self._endpoint.logins is None else [_HELLO]
        self._first = [*auth, *newer, (b"CLIENT", b"SETNAME", name.encode())]
        return self._first

    def renewal(self) -> Command | None:
        """What to send if the provider has another login, and this session can change it; else another session must."""
        endpoint = self._endpoint
        latest = None if endpoint.logins is None else endpoint.logins.look(endpoint.clock, endpoint.limits)
        if latest is None or latest == self._login:
            return None
        self._login = latest
        if self.renewable:
            self._renewing = True
            return _auth(latest)
        if endpoint.binding is not None:
            endpoint.binding.login_ends(endpoint.clock.monotonic())
        return None

    def takes(self, answer: object) -> bool:
        """Whether the answer belongs to all that, and needs no more attention. Call it for each answer, in order."""
        error = isinstance(answer, hiredis.ReplyError)
        number, self._answers = self._answers, self._answers + 1
        if number < len(self._first):
            return self._takes_first(self._first[number], answer, error=error)
        if not self._renewing or not (error or answer == _TAKEN):
            return False
        self._renewing = False
        if error and self._endpoint.logins is not None:  # the former login stays valid until the server ends it
            self._endpoint.logins.doubt()
        return True

    def _takes_first(self, command: Command, answer: object, *, error: bool) -> bool:
        if command is _HELLO:
            if type(answer) is dict:
                self.pushed = hiredis.PushNotification
            return True
        # The name is only for people.
        return error and command[0] == b"CLIENT" and str(answer).startswith(_UNWANTED)


def _auth(login: Login) -> Command:
    return (b"AUTH", *(word.encode() for word in login.arguments))
