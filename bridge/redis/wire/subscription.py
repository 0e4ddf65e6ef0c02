"""The notification stream: one TCP session, which ends once, with a reason.

An own protocol on hiredis, because redis-py's PubSub reconnects silently (a gap that nobody sees), can freeze the event
loop on a dead link, and never notices a hung server.

Guarantees: hints are kept in the order in which Redis sent them, from the moment on at which all channels are
confirmed; reading never waits for whoever handles them; memory
is bounded (the session ends when the backlog is full, or a message as large: a gap, which is announced, not a full
memory); a server that says nothing for a while, though it is asked, ends the session; so does one that sends what was
not asked for. No bytes make it raise.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import hiredis

from bridge.endings import Ending
from bridge.errors import BridgeError, NotConnected
from bridge.redis.protocol.inbox import Hint, Inbox
from bridge.redis.wire.binding import Binding, OtherServerError
from bridge.redis.wire.endpoint import CLIENT_NAME, Endpoint
from bridge.redis.wire.errors import connection_failed, error_reply, login_refused
from bridge.tls import abort

_INFO = b"# "
"""How the answer to INFO begins."""
_MESSAGE_PARTS = 3
"""Elements of a message, and of a confirmation."""
_MESSAGES = {b"message", b"smessage"}
_CONFIRMATIONS = {b"subscribe", b"ssubscribe"}
_PART = object()
"""What the reader answers where the next message is not complete: a null would look like `None`."""
_UNWANTED = ("NOPERM", "ERR unknown command", "ERR unknown subcommand")
"""How Redis begins to say that it does not take a command."""
_ANSWER_SHOWN = 500
"""Characters of an error of Redis's that are worth repeating."""


@dataclass(frozen=True, slots=True)
class OptionalChannels:
    """Channels that Redis may refuse, each kind as a whole."""

    elsewhere: Sequence[bytes] = ()
    """The expirations of other databases."""
    presence: Sequence[bytes] = ()
    """Those of the bridges themselves."""
    sharded: bool = False
    """Whether the latter are shard channels, as in a cluster, where others are broadcast to all nodes."""


class Subscription(asyncio.Protocol):
    """A session. Made by `subscribe`."""

    def __init__(
        self,
        channels: Sequence[bytes],
        inbox: Inbox,
        wake: Callable[[], None],
        endpoint: Endpoint,
        optional: OptionalChannels | None = None,
    ) -> None:
        optional = optional or OptionalChannels()
        self._inbox = inbox
        self.ended: str | None = None
        """Why the session is over; None while it goes on. What is in the inbox then was still received in order."""
        self.ending = Ending.CONNECTION_LOST
        """The kind of that reason."""
        self.broken: Exception | None = None
        """What the connection was lost by; None where it was closed."""
        self.answered = False
        """Whether Redis has said anything at all."""
        self.complete = True
        """Whether it also hears the expirations elsewhere."""
        self.present = bool(optional.presence)
        """Whether it also hears the channels of the bridges themselves."""
        self._channels = frozenset({*channels, *optional.elsewhere, *optional.presence})
        self._required = set(channels)
        self._elsewhere = set(optional.elsewhere)
        self._presence = set(optional.presence)
        """Not confirmed yet, in the order in which they are asked for."""
        self._binding = endpoint.binding
        """Until its server is known to be the one that the epoch is bound to."""
        self._until_name = -1
        """How many answers are to come before the one to our name."""
        self._wake = wake
        self._clock = endpoint.clock
        self._limits = endpoint.limits
        self._reader = hiredis.Reader(notEnoughData=_PART)
        self._transport: asyncio.Transport | None = None
        self._confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heard = self._clock.monotonic()
        self._part_bytes = 0
        """Bytes received behind those that completed the last message."""

    async def confirmed(self) -> None:
        """Return when Redis has confirmed every channel, or refused optional ones. Raises Refused or NotConnected."""
        await self._confirmed

    async def watch(self) -> None:
        """Keep asking whether the server is alive, until the session is over."""
        while self.ended is None:
            await self._clock.sleep(self._limits.ping)
            silent = self._clock.monotonic() - self._heard
            if silent > self._limits.silence:
                self.end(f"Redis said nothing for {silent:.1f} s", Ending.SILENT)
            elif self._transport is not None:
                self._transport.write(b"*1\r\n$4\r\nPING\r\n")

    def end(self, reason: str, ending: Ending = Ending.CONNECTION_LOST) -> None:
        """End the session now, for `reason`, unless it is over already, and close the connection."""
        self.finish(reason, ending)
        if self._transport is not None:
            abort(self._transport)

    def finish(self, reason: str, ending: Ending) -> None:
        """Take nothing more. The connection stays until `end`: so long, other bridges see that this one is alive."""
        if self.ended is None:
            self.ended, self.ending = reason, ending
            self._unconfirmable(NotConnected(reason))
            self._wake()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The session is over."""
        self.broken = exc
        self.end(f"connection lost: {exc}" if exc else "Redis closed the connection")

    def greet(self, name: str, user: str | None, password: str | None) -> None:
        """Log in, and say the name, which Redis may not want to know."""
        login = [[b"AUTH", *([user.encode()] if user else []), password.encode()]] if password else []
        self._until_name = len(login)
        self.send(*login, [b"CLIENT", b"SETNAME", name.encode()])

    def send(self, *commands: Sequence[bytes]) -> None:
        """Send commands in one write."""
        if self._transport is not None:
            self._transport.write(b"".join(_packed(command) for command in commands))

    def data_received(self, data: bytes) -> None:
        """Take the hints out of `data`."""
        if self.ended is not None:
            return
        self._heard, self.answered = self._clock.monotonic(), True
        self._part_bytes += len(data)
        hints: list[Hint] = []
        try:
            self._reader.feed(data)
            self._read(hints)
        except (hiredis.ProtocolError, TypeError, MemoryError) as error:
            # The latter two: of a map whose key is a list, of an array that is said to be of 4,000,000,000 elements.
            self.end(f"Redis sent what is not its protocol: {str(error) or type(error).__name__}")
        if self._part_bytes > self._limits.backlog_bytes:
            self.end(f"Redis sent a message of more than {self._limits.backlog_bytes} bytes")
        self._inbox.put(hints)
        if self._inbox.full:
            self.end(f"hint backlog full: {len(self._inbox)} waiting", Ending.BACKLOG_FULL)
        if hints:
            self._wake()

    def _read(self, hints: list[Hint]) -> None:
        """Take all complete messages, in order, until one that was not asked for."""
        reader, channels = self._reader, self._channels
        while (reply := reader.gets()) is not _PART:
            self._part_bytes = 0
            if type(reply) is list and len(reply) == _MESSAGE_PARTS and reply[0] in _MESSAGES:
                _, channel, key = reply
                if type(key) is not bytes or channel not in channels:
                    self.end("Redis sent a message that was not asked for")
                    return
                hints.append((channel, key))
            else:
                awaited = not self._confirmed.done()
                self._answered(reply)
                if awaited and self._confirmed.done():  # what came before did not come from all channels
                    hints.clear()
                    self._inbox.clear()

    def _answered(self, reply: Any) -> None:  # noqa: ANN401 - whatever a server may send
        to_name = type(reply) is not list and self._until_name == 0
        self._until_name -= type(reply) is not list
        if isinstance(reply, hiredis.ReplyError):
            if not (to_name and str(reply).startswith(_UNWANTED)):  # the name is for people alone
                self._denied(str(reply)[:_ANSWER_SHOWN])
        elif type(reply) is list and len(reply) == _MESSAGE_PARTS:
            if reply[0] in _CONFIRMATIONS:
                for unconfirmed in (self._required, self._elsewhere, self._presence):
                    unconfirmed.discard(reply[1])
            elif reply[0] == b"sunsubscribe":
                self.end("Redis has ended the subscription: the slot of the ledger's name has moved")
        elif type(reply) is bytes and reply.startswith(_INFO) and self._binding is not None:
            self._introduced(self._binding, reply)
        if not (self._required or self._elsewhere or self._presence or self._binding or self._confirmed.done()):
            self._confirmed.set_result(None)

    def _denied(self, answer: str) -> None:
        """An error: to the first command without an answer, since answers come in the order of the commands."""
        if self._required or not (self._elsewhere or self._presence):
            self._refused(answer)
        elif self._elsewhere:
            self._elsewhere.clear()
            self.complete = False
        else:
            self._presence.clear()
            self.present = False

    def _introduced(self, binding: Binding, info: bytes) -> None:
        """The server has said which one it is."""
        try:
            binding.require(info)
        except OtherServerError as error:
            self.end(str(error))
        else:
            self._binding = None

    def _refused(self, answer: str) -> None:
        self._unconfirmable(SubscriptionRefused(answer))
        self.end(f"Redis answered: {answer}", Ending.REFUSED)

    def _unconfirmable(self, error: BridgeError) -> None:
        if not self._confirmed.done():
            self._confirmed.set_exception(error)
            self._confirmed.exception()  # it need not be awaited: the wait may have been given up


class SubscriptionRefused(BridgeError):
    """Redis answered the login or the SUBSCRIBE with an error, which is the message."""


def _packed(command: Sequence[bytes]) -> bytes:
    return b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in command)


async def subscribe(
    endpoint: Endpoint,
    channels: Sequence[bytes],
    inbox: Inbox,
    wake: Callable[[], None],
    optional: OptionalChannels | None = None,
) -> Subscription:
    """Connect, log in, subscribe; return when all channels are confirmed, or optional ones refused.

    Hints go into the inbox. Raises NotConnected or Refused.
    """
    optional = optional or OptionalChannels()
    session = Subscription(channels, inbox, wake, endpoint, optional)
    try:
        async with endpoint.clock.timeout(endpoint.limits.subscribe):
            await _connect(endpoint, session)
            session.greet(CLIENT_NAME, *endpoint.credentials())
            who = [[b"INFO", b"server"]] if endpoint.binding is not None else []
            session.send(*who, [b"SUBSCRIBE", *channels])
            if optional.elsewhere:
                session.send([b"SUBSCRIBE", *optional.elsewhere])
            if optional.presence:
                session.send([b"SSUBSCRIBE" if optional.sharded else b"SUBSCRIBE", *optional.presence])
            await session.confirmed()
    except TimeoutError as error:
        session.end("no answer")
        message = f"Redis at {endpoint}: no answer within {endpoint.limits.subscribe:g} s"
        raise NotConnected(message) from error
    except (OSError, NotConnected) as error:
        session.end(str(error))
        connected = session.broken is not None or isinstance(error, NotConnected)
        answered = session.answered or not connected
        raise connection_failed(endpoint, session.broken or error, answered=answered) from error
    except SubscriptionRefused as error:
        answer = str(error)
        if answer.startswith(("WRONGPASS", "NOAUTH", "ERR AUTH", "ERR invalid password")):
            raise login_refused(endpoint, answer) from error
        raise error_reply(endpoint, answer) from error
    except BaseException:
        session.end("cancelled")
        raise
    return session


async def _connect(endpoint: Endpoint, session: Subscription) -> None:
    loop = asyncio.get_running_loop()
    if endpoint.path:
        await loop.create_unix_connection(lambda: session, endpoint.path)
    else:
        tls = endpoint.ssl_context()
        timeout = endpoint.limits.handshake if tls else None  # the library wants none without TLS
        await loop.create_connection(
            lambda: session, endpoint.host, endpoint.port, ssl=tls, ssl_handshake_timeout=timeout
        )
