"""Why an epoch ended, as a word that fits a label: few, and the same in every language and version of a server."""

from enum import StrEnum


class Ending(StrEnum):
    """The kinds of reasons. The reason itself, in words, is in the log and in the gap record."""

    CONNECTION_LOST = "connection_lost"
    """The connection broke, or a command was not answered in time."""
    SILENT = "silent"
    """The connection stood, but Redis said nothing any more."""
    MUTE = "mute"
    """Redis answered, but did not notify what it certainly had to."""
    MISSED = "missed"
    """The audit: Redis expired more keys than it told of."""
    FLAGS_CHANGED = "flags_changed"
    DEMOTED = "demoted"
    """The server is no primary any more, or sentinels name another one."""
    LEASE_LOST = "lease_lost"
    OWN_KEY_LOST = "own_key_lost"
    BACKLOG_FULL = "backlog_full"
    """Hints came faster than they could be handled, for too long."""
    REFUSED = "refused"
    """Redis does not permit any more what the bridge needs."""
    HANDED_OVER = "handed_over"
    """Another bridge is to have the shard."""
    SLOTS_MOVED = "slots_moved"
    """Slots of a cluster have moved, and the ledger is that of no primary any more."""
    SHUTDOWN = "shutdown"
    """The bridge was asked to end."""
