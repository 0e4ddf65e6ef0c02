"""`expiry-bridge demo`: the whole story in well under a minute, with servers of its own.

Guarantees: needs nothing but the extra `demo` (and, with Kafka, a Java and a Kafka); touches no server but its own;
leaves no process and no file behind, also on Ctrl-C, SIGTERM and SIGHUP. If it is killed (SIGKILL), its processes end
with it (on Linux), its files stay.

How it is built: `command` is what the command line calls; the `stage` has the processes, the `story` does things to
them and tells what it sees, and the `consumer` reads what the broker stores. The `broker`, one of two (`jetstream`,
`kafka`), is on the stage, and what only holds for it is said in its words.
"""

from bridge.commands.demo.command import demo

__all__ = ["demo"]
