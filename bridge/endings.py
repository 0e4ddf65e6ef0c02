"""Why an epoch ended, as a word that fits a label: few, and the same in every language and version of a server."""

from enum import StrEnum


class Ending(StrEnum):
    """The kinds of reasons. The reason itself, in words, is in the log and in the gap record."""

    CONNECTION_LOST = "connection_lost"
    """The connection broke, or a command was not answered in time."""
    SILENT = "silent"
    """The connection was up, but Redis no longer said anything."""
    MUTE = "mute"
    """Redis answered, but did not send a notification that was certainly due."""
    MISSED = "missed"
    """The audit found that Redis expired more keys than it notified."""
    FLAGS_CHANGED = "flags_changed"
    DEMOTED = "demoted"
    """The server is no longer a primary, or sentinels name another one."""
    LEASE_LOST = "lease_lost"
    OWN_KEY_LOST = "own_key_lost"
    BACKLOG_FULL = "backlog_full"
    """Hints came faster than they could be handled, for too long."""
    REFUSED = "refused"
    """Redis no longer permits what the bridge needs."""
    HANDED_OVER = "handed_over"
    """Another bridge should have the shard."""
    SLOTS_MOVED = "slots_moved"
    """Slots of a cluster have moved, and the ledger no longer belongs to a primary."""
    RELIEVED = "relieved"
    """Another session of this bridge goes on: the login ends, or the password or a certificate was replaced."""
    SHUTDOWN = "shutdown"
    """The bridge was asked to end."""
