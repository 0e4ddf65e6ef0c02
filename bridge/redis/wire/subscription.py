"""The notification stream: one TCP session, which ends once, with a reason.

This is our own protocol on hiredis, because redis-py's PubSub reconnects silently (an unnoticed gap), can freeze the
event loop on a dead link, and never notices a hung server.

Guarantees: from the moment when all channels are confirmed, hints are kept in the order in which Redis sent them.
Reading never waits for the interpreter. Memory is bounded: the session ends when the backlog is full, or when one
message is as large, because an announced gap is better than a full memory. A server that does not answer for a while
ends the session, and so does one that sends what was not asked for. No received bytes make it raise.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import hiredis

from bridge.endings import Ending
from bridge.errors import BridgeError, NotConnected
from bridge.redis.protocol.inbox import Hint, Inbox
from bridge.redis.protocol.notifications import ALL_INVALID, INVALIDATIONS
from bridge.redis.wire.binding import Binding, OtherServerError
from bridge.redis.wire.endpoint import CLIENT_NAME, Endpoint
from bridge.redis.wire.errors import connection_failed, error_reply, login_refused
from bridge.redis.wire.logins import Login
from bridge.redis.wire.session_login import SessionLogin
from bridge.tls import abort

_INFO = b"# "
"""How the answer to INFO begins."""
_MESSAGE_PARTS = 3
"""Elements of a message, and of a confirmation."""
_MESSAGES = {b"message", b"smessage"}
_CONFIRMATIONS = {b"subscribe", b"ssubscribe"}
_PAIR, _INVALIDATE = 2, b"invalidate"
"""How the newer protocol reports writes: this word, and the keys."""
_PART = object()
"""What the reader returns if the next message is not complete: `None` would look like a null."""
_TURNS_TO_READ = 2
"""Turns of the event loop until what has come is read: the first one sees it, behind what was ready before."""
_ANSWER_SHOWN = 500
"""How many characters of a Redis error are worth repeating."""


@dataclass(frozen=True, slots=True)
class OptionalChannels:
    """Channels that Redis may refuse, each kind as a whole."""

    elsewhere: Sequence[bytes] = ()
    """The expirations of other databases."""
    presence: Sequence[bytes] = ()
    """Channels of the bridges themselves."""
    sharded: bool = False
    """Whether `presence` are shard channels, as in a cluster, where other channels are broadcast to all nodes."""
    invalidations: bool = False
    """Whether Redis should report here the writes of keys that another connection has read."""


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
        """Why the session is over; None while it lasts. What is in the inbox by then was received in order."""
        self.ending = Ending.CONNECTION_LOST
        """The kind of that reason."""
        self.broken: Exception | None = None
        """The error by which the connection was lost; None if it was closed."""
        self.answered = False
        """Whether Redis has said anything at all."""
        self.complete = True
        """Whether it also hears the expirations of other databases."""
        self.present = bool(optional.presence)
        """Whether it also hears the channels of the bridges themselves."""
        self.id: int | None = None
        """That of the connection; None if it was not asked for, or if Redis does not say."""
        self.invalidations = optional.invalidations
        """Whether it also hears the writes of keys that a connection which redirects to this `id` has read."""
        self._channels = frozenset({*channels, *optional.elsewhere, *optional.presence})
        self._required = set(channels)
        self._elsewhere = set(optional.elsewhere)
        self._presence = set(optional.presence)
        self._tracked = {INVALIDATIONS} if optional.invalidations else set[bytes]()
        """Channels that are not confirmed yet, in the order of the requests."""
        self._binding = endpoint.binding
        """Kept until its server is known to be the one that the epoch is bound to."""
        self._asks_id = optional.invalidations
        """Whether that answer is awaited: the first one after those to the login."""
        self.login = SessionLogin(endpoint)
        self._wake = wake
        self._clock = endpoint.clock
        self._limits = endpoint.limits
        self._reader = hiredis.Reader(notEnoughData=_PART)
        self._transport: asyncio.Transport | None = None
        self._confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heard = self._clock.monotonic()
        self._part_bytes = 0
        """Bytes received since the last complete message."""

    async def confirmed(self) -> None:
        """Return when Redis has confirmed every channel, or refused optional ones. Raises Refused or NotConnected."""
        await self._confirmed

    async def watch(self) -> None:
        """Keep asking whether the server is alive, until the session is over."""
        while self.ended is None:
            await self._clock.tick(self._limits.ping)
            silent = self._clock.monotonic() - self._heard
            if silent > self._limits.silence:
                self.end(f"Redis said nothing for {silent:.1f} s", Ending.SILENT)
            elif self._transport is not None:
                renewal = self.login.renewal()
                self.send((b"PING",), *([] if renewal is None else [renewal]))

    def end(self, reason: str, ending: Ending = Ending.CONNECTION_LOST) -> None:
        """End the session now, for `reason`, unless it is over already, and close the connection."""
        self.finish(reason, ending)
        if self._transport is not None:
            abort(self._transport)

    def finish(self, reason: str, ending: Ending) -> None:
        """Take nothing more. The connection stays until `end`, so that other bridges see that this one is alive."""
        if self.ended is None:
            self.ended, self.ending = reason, ending
            self._unconfirmable(NotConnected(reason))
            self._wake()

    async def rest(self, seconds: float) -> None:
        """Take nothing for a while: what comes meanwhile is taken in one piece, when this returns.

        So hints that come one by one are not a wake-up each, which costs more than all that is done with them.
        """
        transport = self._transport
        if transport is None or self.ended is not None:
            return
        transport.pause_reading()
        try:
            await self._clock.sleep(seconds)
        finally:
            transport.resume_reading()
        for _ in range(_TURNS_TO_READ):
            await asyncio.sleep(0)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The session is over."""
        self.broken = exc
        self.end(f"connection lost: {exc}" if exc else "Redis closed the connection")

    def greet(self, name: str, login: Login | None) -> None:
        """See `SessionLogin.greeting`."""
        self.send(*self.login.greeting(name, login))

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
            # The last two come from a map whose key is a list, and from an array that claims 4,000,000,000 elements.
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
        reader, channels, pushed = self._reader, self._channels, self.login.pushed
        while (reply := reader.gets()) is not _PART:
            self._part_bytes = 0
            if type(reply) is pushed and len(reply) == _MESSAGE_PARTS and reply[0] in _MESSAGES:
                _, channel, key = reply
                if channel == INVALIDATIONS and self.invalidations:
                    hints += _invalid(key)
                    continue
                if type(key) is not bytes or channel not in channels:
                    self.end("Redis sent a message that was not asked for")
                    return
                hints.append((channel, key))
            elif self.invalidations and type(reply) is pushed and len(reply) == _PAIR and reply[0] == _INVALIDATE:
                hints += _invalid(reply[1])
            else:
                awaited = not self._confirmed.done()
                self._answered(reply)
                pushed = self.login.pushed
                if awaited and self._confirmed.done():  # earlier messages did not come from all channels
                    hints.clear()
                    self._inbox.clear()

    def _answered(self, reply: Any) -> None:  # noqa: ANN401 - whatever a server may send
        pushed = type(reply) is self.login.pushed
        if not pushed and self.login.takes(reply):
            pass
        elif not pushed and self._asks_id and self.login.through:
            self._asks_id = False
            self.id = reply if type(reply) is int else None  # refused: nothing can be tracked
        elif isinstance(reply, hiredis.ReplyError):
            self._denied(str(reply)[:_ANSWER_SHOWN])
        elif pushed and len(reply) == _MESSAGE_PARTS:
            if reply[0] in _CONFIRMATIONS:
                for unconfirmed in (self._required, self._elsewhere, self._presence, self._tracked):
                    unconfirmed.discard(reply[1])
            elif reply[0] == b"sunsubscribe":
                self.end("Redis has ended the subscription: the slot of the ledger's name has moved")
        elif type(reply) is bytes and reply.startswith(_INFO) and self._binding is not None:
            self._introduced(self._binding, reply)
        unconfirmed = self._required or self._elsewhere or self._presence or self._tracked
        if not (unconfirmed or self._binding or self._confirmed.done()):
            self._confirmed.set_result(None)

    def _denied(self, answer: str) -> None:
        """An error. It answers the first unanswered command, because answers come in the order of the commands."""
        if self._required or not (self._elsewhere or self._presence or self._tracked):
            self._refused(answer)
        elif self._elsewhere:
            self._elsewhere.clear()
            self.complete = False
        elif self._presence:
            self._presence.clear()
            self.present = False
        else:
            self._tracked.clear()
            self.invalidations = False

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


def _invalid(keys: object) -> Iterator[Hint]:
    """An invalidation, as hints; None stands for all keys."""
    if keys is None:
        yield ALL_INVALID, b""
    elif isinstance(keys, list):
        for key in keys:
            if isinstance(key, bytes):
                yield INVALIDATIONS, key


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
            login = await endpoint.current_login()
            await endpoint.open(session, endpoint.ssl_context())
            session.greet(CLIENT_NAME, login)
            who = [[b"CLIENT", b"ID"]] if optional.invalidations else []
            who += [[b"INFO", b"server"]] if endpoint.binding is not None else []
            session.send(*who, [b"SUBSCRIBE", *channels])
            if optional.elsewhere:
                session.send([b"SUBSCRIBE", *optional.elsewhere])
            if optional.presence:
                session.send([b"SSUBSCRIBE" if optional.sharded else b"SUBSCRIBE", *optional.presence])
            if optional.invalidations:
                session.send([b"SUBSCRIBE", INVALIDATIONS])
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
