"""Which notifications the bridge listens to, and what each kind of them means for the ledger."""

from enum import Enum, auto

NEEDED_FLAGS = "Egxe"
"""Of `notify-keyspace-events`: keyevent channels, generic commands, expired, evicted."""
_ALL = frozenset("g$lshzxetd")
"""What the flag `A` stands for."""


class Kind(Enum):
    """What a notification means."""

    EXPIRED = auto()
    ELSEWHERE = auto()
    """A key of another database expired: it only counts."""
    GONE = auto()
    """The key is gone, and did not expire."""
    ANNOUNCED = auto()
    """No notification, but a bridge's own message in the same stream: what stands for the key is an announcement."""
    APPEARED = auto()
    """The key is there; its deadline may be new, later, nearer, or lifted. It has to be read."""


KINDS = {
    "expired": Kind.EXPIRED,
    "del": Kind.GONE,  # DEL, UNLINK, GETDEL, a collection that became empty; Redis: EXPIRE into the past
    "evicted": Kind.GONE,
    "rename_from": Kind.GONE,
    "move_from": Kind.GONE,
    "expire": Kind.APPEARED,  # EXPIRE and its kin, SET EX and its kin, SETEX, PSETEX, GETEX
    "persist": Kind.APPEARED,
    "rename_to": Kind.APPEARED,
    "move_to": Kind.APPEARED,
    "restore": Kind.APPEARED,
    "copy_to": Kind.APPEARED,
}


def channels(db: int) -> dict[bytes, Kind]:
    """The channels of one database, and what each means.

    `set` is not among them: a SET without a TTL over a key with one shows in the resolve at the old deadline, and
    listening to it would cost a notification for every write of the user's.
    """
    return {b"__keyevent@%d__:%b" % (db, event.encode()): kind for event, kind in KINDS.items()}


def elsewhere(db: int, databases: int) -> dict[bytes, Kind]:
    """The channels of the expirations in all databases but `db`."""
    return {b"__keyevent@%d__:expired" % other: Kind.ELSEWHERE for other in range(databases) if other != db}


def missing_flags(flags: str) -> str:
    """Which of the needed flags a `notify-keyspace-events` value lacks."""
    present = set(flags) | (_ALL if "A" in flags else frozenset())
    return "".join(flag for flag in NEEDED_FLAGS if flag not in present)
