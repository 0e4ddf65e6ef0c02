"""Servers of our own, as child processes: for the demo and for the tests, never for the service.

Guaranteed: a server has its own temporary directory and a loopback port that stays the same across restarts;
`start()` returns when it answers; `close()` (or the end of the `with` block) leaves no process and no file behind.
On Linux the kernel kills it, too, when this process dies, however it dies; on other systems only `close()` does.

Everything here is synchronous and short, except for the waits: do not wait inside an event loop for a server that
needs that same loop to make progress (a proxy, for instance). `Server.starting()` leaves the waits to its caller.
"""

from bridge.commands.embedded.kafka import EmbeddedKafka
from bridge.commands.embedded.nats import EmbeddedNats
from bridge.commands.embedded.process import DIRECTORY_PREFIX, Process
from bridge.commands.embedded.server import STOP_SECONDS, Server, StartFailed, Unavailable, free_port
from bridge.commands.embedded.valkey import EmbeddedValkey

__all__ = [
    "DIRECTORY_PREFIX",
    "STOP_SECONDS",
    "EmbeddedKafka",
    "EmbeddedNats",
    "EmbeddedValkey",
    "Process",
    "Server",
    "StartFailed",
    "Unavailable",
    "free_port",
]
