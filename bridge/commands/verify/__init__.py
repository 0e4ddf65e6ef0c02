"""`expiry-bridge verify`: an oracle for a running deployment, whichever bridge, Redis and broker it is made of.

Sets short-lived keys, reads the broker as any consumer would, and says what was delivered, what was missed, what came
twice, what ought not to have come, and how late.

Guarantees: it touches only its own keys, each of which expires no matter which process dies, or when. It deletes what
is left of them at its end, also after Ctrl-C. No consumer is disturbed. Memory is some 20 bytes per key.
Exit status: 0 all delivered; 1 something was missed or false, or a server cannot be reached; 2 it could not work with
these settings, nothing was set; 128 + n ended by signal n.

How it is built: `plan` is what shall be done, `course` does it, `books` are kept of it, `report` shows them.
"""

from bridge.commands.verify.command import verify

__all__ = ["verify"]
