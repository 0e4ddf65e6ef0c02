"""`expiry-bridge verify`: an oracle for a running deployment, whichever bridge, Redis and broker it is made of.

Sets short-lived keys, reads the broker as any consumer would, and says what was delivered, what was missed, what came
twice, what ought not to have come, and how late.

Guarantees: touches no key but its own, each of which expires by itself, whoever dies when; deletes what is left of
them at its end, Ctrl-C included; nobody's consumer notices. Memory is some 20 bytes per key.
Exit status: 0 all delivered; 1 something was missed or false, or a server cannot be reached; 2 it could not work with
these settings, nothing was set; 128 + n ended by signal n.

How it is built: `plan` is what shall be done, `course` does it, `books` are kept of it, `report` shows them.
"""

from bridge.commands.verify.command import verify

__all__ = ["verify"]
