"""Which notifications the bridge listens to, and what each kind of them means for the ledger."""

from enum import Enum, auto

NEEDED_FLAGS = "Egxe"
"""Flags of `notify-keyspace-events`: keyevent channels, generic commands, expired, evicted."""
FIELD_FLAGS, NAMING_FLAG = f"{NEEDED_FLAGS}h", "T"
"""With fields also hash commands. From Redis 8.8 on, also channels on which the server names the fields."""
_ALL = frozenset("g$lshzxetd")
"""What the flag `A` stands for."""


class Kind(Enum):
    """What a notification means."""

    EXPIRED = auto()
    ELSEWHERE = auto()
    """A key of another database expired: it is only counted."""
    GONE = auto()
    """The key is gone, and did not expire."""
    ANNOUNCED = auto()
    """Not a notification, but a bridge's own message in the same stream. An announcement stands in place of the key."""
    CHANGED = auto()
    """Not a notification either, but an invalidation in the same stream: a key with a captured value was written."""
    ALL_CHANGED = auto()
    """The same for all keys."""
    APPEARED = auto()
    """The key is there; its deadline may be new, later, nearer, or lifted. It has to be read."""
    FIELD_EXPIRED = auto()
    """A field of the hash."""
    FIELD_TIMED = auto()
    """Fields have got deadlines, or lost them."""
    FIELD_SET = auto()
    """Fields were set, which takes their deadlines away."""
    FIELD_DELETED = auto()
    NAMED_EXPIRED = auto()
    """As FIELD_EXPIRED, but hash and fields stand in place of the key (`fields.named`)."""
    NAMED_DELETED = auto()


EXPIRATIONS = frozenset((Kind.EXPIRED, Kind.FIELD_EXPIRED, Kind.NAMED_EXPIRED))
"""What has to be announced at once."""
OF_FIELDS = frozenset(
    (
        Kind.FIELD_EXPIRED,
        Kind.FIELD_TIMED,
        Kind.FIELD_SET,
        Kind.FIELD_DELETED,
        Kind.NAMED_EXPIRED,
        Kind.NAMED_DELETED,
    )
)
"""What is not about the key itself."""


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

_FIELD_CHANGES = {"hexpire": Kind.FIELD_TIMED, "hpersist": Kind.FIELD_TIMED, "hset": Kind.FIELD_SET}
_FIELD_ENDS = {"hexpired": Kind.FIELD_EXPIRED, "hdel": Kind.FIELD_DELETED}
_NAMED_ENDS = {"hexpired": Kind.NAMED_EXPIRED, "hdel": Kind.NAMED_DELETED}


def channels(db: int) -> dict[bytes, Kind]:
    """The channels of one database, and what each means.

    `set` is not among them. A SET without a TTL over a key that has one shows in the resolve at the old deadline, and
    listening to `set` would cost a notification for every write of the users.
    """
    return {b"__keyevent@%d__:%b" % (db, event.encode()): kind for event, kind in KINDS.items()}


def field_channels(db: int, *, named: bool) -> dict[bytes, Kind]:
    """The channels of fields, of one database. `named`: the server names fields; no end is notified twice."""
    prefix, ends = (b"subkeyevent", _NAMED_ENDS) if named else (b"keyevent", _FIELD_ENDS)
    changes = {b"__keyevent@%d__:%b" % (db, event.encode()): kind for event, kind in _FIELD_CHANGES.items()}
    return changes | {b"__%b@%d__:%b" % (prefix, db, event.encode()): kind for event, kind in ends.items()}


INVALIDATIONS = b"__redis__:invalidate"
"""The channel on which Redis reports writes of keys that another connection of the same client has read."""
ALL_INVALID = b"__redis__:invalidate *"
"""Stands in place of that channel if Redis said so for all keys."""
TRACKED = {INVALIDATIONS: Kind.CHANGED, ALL_INVALID: Kind.ALL_CHANGED}


def elsewhere(db: int, databases: int) -> dict[bytes, Kind]:
    """The channels of the expirations in all databases but `db`."""
    return {b"__keyevent@%d__:expired" % other: Kind.ELSEWHERE for other in range(databases) if other != db}


def missing_flags(flags: str, needed: str = NEEDED_FLAGS) -> str:
    """Which of the needed flags a `notify-keyspace-events` value lacks."""
    present = set(flags) | (_ALL if "A" in flags else frozenset())
    return "".join(flag for flag in needed if flag not in present)
