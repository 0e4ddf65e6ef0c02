"""A TCP proxy between the bridge and a server, to break the link at a chosen moment.

    async with Proxy(redis.port, Protocol.RESP) as proxy:
        claim = proxy.break_on(TO_SERVER, command(b"XADD"), Action.HOLD_REPLY)
        ...                       # start a bridge that connects to proxy.port
        await claim.reached()     # Redis has executed it, the bridge does not know
        bridge.kill()

It knows where a frame begins and ends (a RESP value; a NATS protocol line with its payload; else whatever one read
returned), and lets through, holds or drops whole frames, each direction of each connection by itself:

* `cut()` resets connections. `refuse()` stops listening, `accept()` listens again, on the same port. Who comes from an
  address that is `barred` is reset at once.
* `stall()` holds all that flows one way: of all connections, or of those chosen (`is_subscriber`, for instance).
* `break_on()` waits for a certain frame, then does something to it, or to its reply.
* `delay` is the time in seconds that every read takes, each way. `late` says of single frames how much later than what
  follows them they are passed on.

Held is held: not even the end of a connection gets past, and nothing more is read, so the sender's buffers fill up as
if its peer stood still. A half-closed connection is closed as a whole. While the server is down, a connection is
accepted and then reset. The proxy lives in the test's event loop: a test that blocks the loop blocks the proxy.
"""

from tests.support.proxy.connection import (
    TO_CLIENT,
    TO_SERVER,
    Action,
    Breakpoint,
    Connection,
    Direction,
    Stream,
    Where,
    everybody,
    is_commander,
    is_subscriber,
)
from tests.support.proxy.frames import Framer, Matches, Protocol, command, resp_arguments
from tests.support.proxy.proxy import Proxy

__all__ = [
    "TO_CLIENT",
    "TO_SERVER",
    "Action",
    "Breakpoint",
    "Connection",
    "Direction",
    "Framer",
    "Matches",
    "Protocol",
    "Proxy",
    "Stream",
    "Where",
    "command",
    "everybody",
    "is_commander",
    "is_subscriber",
    "resp_arguments",
]
