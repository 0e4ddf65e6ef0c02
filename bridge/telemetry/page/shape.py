"""What `/status.json` holds. The schema in `deploy/schemas` is made of it, and a test holds it to its version.

All times are Unix times in ms, all spans are in seconds, unless the name says otherwise. What only the holder of a
lease knows is 0 on a bridge without one.
"""

from typing import Annotated, Final, Literal, TypedDict

VERSION: Final = 1
"""Rises when a member goes, or changes its meaning; not when one is added."""

State = Literal["ready", "attention", "standby", "unready"]


class Bridge(TypedDict):
    """The bridge that answers."""

    instance: Annotated[str, "name of this process among the bridges"]
    version: Annotated[str, "of the package"]
    sink: Annotated[str, "as in `BRIDGE_SINK`"]
    uptime_seconds: Annotated[float, "since its start"]


class Step(TypedDict):
    """A part of the window."""

    seconds: Annotated[float, "how long it is"]
    published: Annotated[int, "messages that the broker acked"]
    p50: Annotated[float | None, "seconds from deadline to ack, of half of them; null: none is known"]
    p99: Annotated[float | None, "likewise, of 99 %"]


class Window(TypedDict):
    """The last quarter of an hour, or since the start."""

    seconds: Annotated[float, "how long it is"]
    published: Annotated[int, "messages that the broker acked"]
    per_second: Annotated[float, "the same, on average"]
    p50: Annotated[float | None, "seconds from deadline to ack, of half of them; null: none is known"]
    p99: Annotated[float | None, "likewise, of 99 %"]
    steps: Annotated[list[Step], "its parts, the oldest first, of ten seconds each but the last"]


class Outbox(TypedDict):
    """What waits for the broker."""

    expirations: Annotated[int, "claimed and not yet acked"]
    oldest_seconds: Annotated[float, "since the oldest was claimed"]
    in_flight: Annotated[int, "messages being published"]


class Broker(TypedDict):
    """The way to it."""

    connected: Annotated[bool, "whether the sink is connected"]
    losses: Annotated[int, "of the connection, since the start"]


class Gap(TypedDict):
    """A time span in which notifications may have been missed. Times are Redis's."""

    shard: Annotated[int, "number of the shard, in a cluster of the ledger"]
    cause: Annotated[str, "why it opened"]
    opened_ms: Annotated[int, "its beginning"]
    until_ms: Annotated[int, "when notifications flowed again"]
    closed_ms: Annotated[int | None, "when it was reconciled; null: not yet, or by another bridge"]
    open: Annotated[bool, "whether this bridge is reconciling it"]
    recovered: Annotated[int, "expirations claimed although their notification was missed"]
    ambiguous: Annotated[int, "entries that may have expired or not"]
    missed: Annotated[int | None, "expirations of the node that were not notified; null: unknown"]


class Gaps(TypedDict):
    """All since the start, and the last of them."""

    total: Annotated[int, "how many"]
    recovered: Annotated[int, "sum"]
    ambiguous: Annotated[int, "sum"]
    missed: Annotated[int, "sum; of several shards each counts what the node missed"]
    unmeasured: Annotated[int, "of how many it is unknown what was missed"]
    last: Annotated[list[Gap], "the oldest first, 50 at most"]


class Takeover(TypedDict):
    """A lease that this bridge took."""

    shard: Annotated[int, "number of the shard"]
    at_ms: Annotated[int, "when"]
    kind: Annotated[Literal["hot", "filled", "cold"], "without a gap; with one that was filled at once; with one"]
    silent_ms: Annotated[int | None, "since the last sign of life of a holder that died; null: none died"]


class Takeovers(TypedDict):
    """All since the start, and the last of them."""

    hot: Annotated[int, "without a gap"]
    filled: Annotated[int, "with a gap that Redis's replication backlog has filled"]
    cold: Annotated[int, "with a gap"]
    last: Annotated[list[Takeover], "the oldest first, 20 at most"]


class PublishedValues(TypedDict):
    """Of the acked messages of keys that `BRIDGE_VALUES` matches, what became of the value."""

    exact: Annotated[int, "it goes along, and is proven to be the last one"]
    not_exact: Annotated[int, "it goes along"]
    not_captured: Annotated[int, "it was not read in time, or the deadline was unknown"]
    too_large: Annotated[int, "it has more than `BRIDGE_VALUES_MAX_BYTES`"]
    unsupported_type: Annotated[int, "a stream, or another type"]
    not_permitted: Annotated[int, "the Redis user may not read it"]
    outbox_full: Annotated[int, "`BRIDGE_VALUES_OUTBOX_BYTES` of values were in Redis already"]


class Values(TypedDict):
    """Values of keys that expire. None of them is shown."""

    wanted: Annotated[bool, "whether `BRIDGE_VALUES` asks for any"]
    held: Annotated[int, "of keys that are about to expire"]
    bytes: Annotated[int, "of these, and of those in the outbox"]
    limit_bytes: Annotated[int, "how many there may be, in the ledgers that it holds: see `BRIDGE_VALUES_OUTBOX_BYTES`"]
    captured: Annotated[int, "how often one was read, since the start"]
    published: PublishedValues
    doubt: Annotated[str | None, "why they are not read, or not proven; null: no such reason is known"]


class FieldsClaimed(TypedDict):
    """Expirations of fields, since the start."""

    notification: Annotated[int, "that Redis said"]
    sweep: Annotated[int, "that it did not say"]


class AmbiguousFields(TypedDict):
    """Fields that may have expired, and were not announced, since the start."""

    deleted: Annotated[int, "a field of the hash was deleted just then"]
    returned: Annotated[int, "set again or put off just then"]
    elsewhere: Annotated[int, "their slot is on another node"]
    too_large: Annotated[int, "their hash has too many fields"]


class Fields(TypedDict):
    """Fields of hashes."""

    bridged: Annotated[bool, "whether `BRIDGE_FIELDS` asks for any"]
    hashes: Annotated[int, "in the field ledgers that it holds"]
    excluded: Annotated[int, "hashes with too many fields: none of theirs is announced"]
    next_deadline_ms: Annotated[int | None, "the first deadline of a field; null: there is none"]
    claimed: FieldsClaimed
    ambiguous: AmbiguousFields
    missed: Annotated[int | None, "always null, unknown: Redis's own count of expired fields is too low for an audit"]


class Channel(TypedDict):
    """A subject or topic on which messages are stuck."""

    on: Annotated[str, "its name, without any part of a key"]
    seconds: Annotated[float, "since when"]
    reason: Annotated[str, "what the broker said at first"]


class Stuck(TypedDict):
    """Messages that the broker does not take, while it may take others."""

    messages: Annotated[int, "how many"]
    channels: list[Channel]


class Shard(TypedDict):
    """A part of the ledger; in a cluster, the ledger of one primary."""

    shard: Annotated[int, "its number"]
    node: Annotated[str | None, "the server that it is on; null: not known yet"]
    held: Annotated[bool, "whether this bridge holds the lease"]
    holder: Annotated[str | None, "the bridge that does, as far as this one knows; null: unknown"]
    standbys: Annotated[
        int | None, "how many others could take over without a gap; null: only the holder knows, if it may ask"
    ]
    subscribed: Annotated[bool, "whether notifications are proven to flow to this bridge"]
    ledger: Annotated[int, "keys in the deadline ledger"]
    outbox: Annotated[int, "expirations claimed and not yet acked"]
    dead_letters: Annotated[int, "messages that the broker refused permanently"]
    canary_age_seconds: Annotated[float, "since the bridge's own key was heard to expire"]
    canary_lag_seconds: Annotated[float, "from that key's deadline until it was heard"]
    standby_hints: Annotated[int, "notifications that this bridge keeps while another holds the lease"]
    standby_hot: Annotated[bool, "whether this bridge stands by, and could take over without a gap"]


class Status(TypedDict):
    """All of it."""

    schema_version: Annotated[int, "of this shape"]
    now_ms: Annotated[int, "when this was written"]
    state: Annotated[State, "`attention`: ready, but someone has to look; `standby`: another bridge is at work"]
    summary: Annotated[str, "the state in a sentence, for people"]
    reasons: Annotated[dict[str, str], "why it is not ready, as in `/readyz`"]
    bridge: Bridge
    window: Window
    ledger: Annotated[int, "keys in the deadline ledgers that it holds"]
    outbox: Outbox
    dead_letters: Annotated[int, "messages that the broker refused permanently"]
    broker: Broker
    gaps: Gaps
    takeovers: Takeovers
    values: Values
    fields: Fields
    stuck: Stuck
    shards: list[Shard]
