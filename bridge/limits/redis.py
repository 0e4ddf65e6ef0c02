"""Limits of the source: everything that talks to Redis."""

from dataclasses import dataclass

from bridge.limits.scaled import KIB, MIB, Scaled, milliseconds, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class WireLimits(Scaled):
    """Connections to Redis, Sentinel and a cluster's nodes."""

    command: float = seconds(5.0)
    """For a reply, or a connection. After that the epoch ends."""
    handshake: float = seconds(4.0)
    """Less than a command may take, so that an error blames the handshake, not Redis for its silence."""
    login: float = seconds(4.0)
    """For a credentials provider's answer. Less than a command may take, so that an error blames it, not Redis."""
    login_look: float = seconds(5.0)
    """Between questions to a credentials provider for another login."""
    subscribe: float = seconds(5.0)
    """For the connection, the login and all confirmations of a subscription together."""
    ping: float = seconds(1.0)
    """Between a subscription's own PINGs."""
    silence: float = seconds(5.0)
    """After that long without a single byte, a server that was asked is considered dead."""
    pressing_hints: int = 500
    """That many notifications of any kind are worth a script: they do not wait for more."""
    backlog_hints: int = 500_000
    """Notifications received and not handled yet, at which the connection is ended."""
    backlog_bytes: int = 64 * MIB
    """Bytes of their keys, likewise."""
    flags_check: float = seconds(5.0)
    """Between looks at `notify-keyspace-events`, which an operator may have changed."""
    primary_check: float = seconds(1.0)
    """Between looks at the server's role, and at what the sentinels say."""
    role: float = seconds(1.0)
    """For that answer. A frozen server, soon to be replaced, must not delay the search for the next one."""
    sentinel: float = seconds(1.0)
    """For a sentinel's answer, including the connection."""
    sentinel_connections: int = 2
    grace: float = seconds(0.25)
    """For other nodes' answers, once one is in: a frozen node must not delay the others' answers."""
    topology: float = seconds(1.0)
    """Between looks at the cluster, and for a node's answer, including the connection."""
    topology_doubt: float = seconds(0.1)
    """The least time between looks, when a part of the bridge doubts the last one."""
    node_connections: int = 8
    """To one node: polls, signs of life, and what several ledgers hand over."""
    cluster_down: float = seconds(0.05)
    """Before a cluster that is down for a moment is asked again. It is down while any replica is promoted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLimits(Scaled):
    """The scripts, and the outbox as delivery reads it."""

    lease_ms: int = milliseconds(5_000)
    """How long a lease is valid without a sign of life. A standby takes over at the latest this long after a crash."""
    adopted: int = 250
    """Entries of another ledger in one script."""
    noting_ms: int = milliseconds(600_000)
    """In a cluster, how long ends of keys are noted after slots moved, or a bridge took the lease. An entry of another
    node's ledger may come that late without announcing such an end once more."""
    noted_keys: int = 50_000
    """Of those ends, the last ones that are kept."""
    outbox_poll: float = seconds(1.0)
    """After that the outboxes are looked at anyway, in case a wake-up was missed."""
    outbox_retry: float = seconds(0.5)
    """Before an outbox (one of several) that could not be read is asked again."""
    settle_patience: float = seconds(0.2)
    """How long settling waits for one of several servers."""
    settle_entries: int = 500
    """Entries settled in one step."""
    owed_entries: int = 1_000
    """Settlements kept of one shard. Older ones are forgotten: the entries are sent once more, under the same ids."""
    reply_bytes: int = MIB
    """About the size of a reply with entries of the outbox, or keys of a scan, and of dead letters settled in one step,
    unless one alone is larger."""
    large_entries: int = 4
    """Entries of the outbox in one reply, where there are more values than a reply may have: an entry has about
    `EpochLimits.value_bytes` of them."""
    fields_kept: int = 500
    """Fields of an unreadable entry that are kept. Lua can pass only some thousands of words to a command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochLimits(Scaled):
    """One epoch: hints, touches, marks, the canary, the audit, the scan, slots that move."""

    batch_keys: int = 500
    """Operations in one script: a bound on how long it keeps Redis busy (about 2 ms), far below what Lua can unpack."""
    batch_bytes: int = MIB // 2
    """Bytes of keys in one script, and in its reply, give or take one key. With everything else, less than 1 MiB: no
    server's limit for a query is lower."""
    least_batch_bytes: int = 16 * KIB
    """If scripts get no reply, half as many bytes are tried, then half of that, down to this."""
    batch_recovery: float = seconds(60.0)
    """After such a failure, before twice as many are tried again; after each further one, twice as long…"""
    batch_patience: float = seconds(3600.0)
    """…up to this."""
    found_keys: int = 250
    """Keys that a scan found in one script, hints included, while a gap is open: the bridge is not ready until all are
    recorded. A fifth of it goes into any script, however many hints there are."""
    part_keys: int = 100
    """The same while no gap is open: nothing waits for these keys, but others wait for Redis meanwhile."""
    slow_touch: float = seconds(0.001)
    """How much longer than usual a touch may take before the scan rests."""
    scan_rest: float = seconds(0.1)
    """The longest rest after a part of a scan, no matter how busy Redis is: the scan has to end."""
    gather: float = seconds(0.005)
    """Between two scripts that only record: one for many hints costs Redis little more than one for a single hint.
    If it were more, the deadlines of keys that live for 5 ms would not be known in time; with this, nearly all are."""
    look_hints: int = 5_000
    """Hints looked at for one batch before the event loop turns. Most may be of others' keys, or in it already."""
    touch_keys: int = 500
    """Keys touched by one script: a bound on how long it keeps Redis busy."""
    scan_keys: int = 500
    """Keys in one SCAN call: a bound on how long it keeps Redis busy (0.2–0.3 µs a key)."""
    heartbeat: float = seconds(1.0)
    """Between touches when nothing is due: extends the lease, and its mark proves that notifications flow."""
    retry: float = seconds(0.005)
    """Before entries are touched again that a touch could not resolve (their own hints are still on the way)."""
    stuck_retry: float = seconds(0.05)
    """Before due entries are touched again whose slots are on their way to another node of the cluster."""
    mark: float = seconds(5.0)
    """Within that time a mark has to come back. Otherwise notifications are off, even if the connection works."""
    canary: float = seconds(2.0)
    """From one canary to the next."""
    canary_ttl_ms: int = milliseconds(100)
    canary_late_ms: int = milliseconds(2_000)
    """Later than that after its deadline, one that is still there has another TTL than it was given."""
    canary_voids: int = 5
    """After that many in a row were deleted, and did not expire, the stream must be another server's."""
    audit: float = seconds(1.0)
    """The least time between two readings: each costs Redis about a tenth of a millisecond."""
    audit_short_epoch: float = seconds(60.0)
    """A counter that is wrong again so soon…"""
    audit_most_short: int = 3
    """…and this often in a row, counts something else than what is notified: the audit no longer trusts it."""
    remembered_keys: int = 50_000
    """How many keys of moving slots, the last ones, are remembered with what became of them."""
    placed: int = 500
    """Entries of moved keys placed at once."""
    migration_pause: float = seconds(1.0)
    """Before placing or adopting is tried again. By then, what was notified has been handled."""
    capture_keys: int = 250
    """Values in one script, at most."""
    capture_declared: int = 16
    """The same if a server tracks only keys that a script declares: the cost grows with the square of their number."""
    value_bytes: int = 256 * KIB
    """Bytes of values that one script reads, whatever becomes of them, or claims, and one more value: about 2 ms."""
    held_values: int = 250_000
    """Keys whose captures are known here. Further ones have to wait."""
    forget_values_ms: int = milliseconds(60_000)
    """How long after its deadline a value is still remembered."""
    listed_values: int = 1_000
    """Entries listed at once whose values may be captured."""
    capture_rate: int = 5_000
    """Values a second, until it is measured."""
    crowd_ms: int = milliseconds(20)
    """Time that capturing the values of a tenth of a second may take without being begun earlier."""
    crowd_look: float = seconds(0.25)
    """Between looks for crowds: each costs Redis 0.05 ms."""
    capture_refused: float = seconds(10.0)
    """Before values are captured again after Redis has refused it."""
    tracking_retry: float = seconds(1.0)
    """Before a tracked connection is opened anew."""
    tracking_refused: float = seconds(60.0)
    """The same, after Redis has refused to track it: its user may be granted the right meanwhile."""
    tracking_patience: float = seconds(0.2)
    """How long everything else waits for it. It usually takes less. Values captured meanwhile are captured again."""
    stray_search: float = seconds(5.0)
    """Between walks, scans and searches for strays that moving slots cause: in a rebalance, they never end."""
    stray_keys: int = 1_000
    """Keys that Redis looks through for strays in one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldLimits(Scaled):
    """Fields of hashes."""

    most: int = 500
    """Live fields of a hash that is read: all of them each time, 1 to 3 µs a field. One with more is a dead letter, as
    is one in which more than four times as many are stored, with those that have expired."""
    hashes: int = 250
    """Hashes read by one script: of those that were notified; and of those that are due."""
    read: int = 500
    """Fields read by one script: a bound on how long it keeps Redis busy (3 ms). Half of them of hashes that were
    notified and half of those that are due, if any is; those of the last hash of either are read as well."""
    read_bytes: int = MIB // 2
    """Bytes of their names and of those of their hashes, which each expiration repeats: likewise, but for one."""
    waiting: int = 100_000
    """Hashes that were notified, and not read yet. With more, all are forgotten, and all hashes gone through."""
    waiting_bytes: int = 64 * MIB
    """Bytes of their names, likewise."""
    scanned: int = 500
    """Keys in one SCAN call: most are no hashes."""
    listed: int = 500
    """Hashes of the ledger in one call."""
    adopted: int = 50
    """Hashes of another ledger in one script."""
    room: int = 1_000
    """Hashes that wait at which no more are searched for."""
    retry: float = seconds(0.005)
    """Before a hash is read again whose first field is past its deadline, and there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BacklogLimits(Scaled):
    """Filling a gap from Redis's replication backlog."""

    anchor: float = seconds(0.05)
    """Between two anchors, at least: each costs Redis about a tenth of a millisecond."""
    fill: float = seconds(2.0)
    """For all of it. Nothing extends the lease meanwhile."""
    stream_bytes: int = 64 * MIB
    """Of the part of the stream that is read: about as many as can be read in that time."""
    command_bytes: int = 16 * MIB
    """Of one command in it."""
    events: int = 250_000
    """What that part may hold, at most. They wait with what was notified meanwhile."""
    margin_bytes: int = 64 * KIB
    """How far from the oldest end of a full backlog the part must begin: Redis goes on writing while it is asked for,
    and would start a full synchronisation for what it no longer has."""
    scores: int = 1_000
    """Entries of the ledger read at once."""
    keep: float = seconds(60.0)
    """Between looks at whether there is a backlog, or a third of the time after which Redis drops it. Each uses it."""
    keep_poll: float = seconds(0.02)
    """Between looks at whether one was just made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLimits(Scaled):
    """From one epoch to the next: the lease, who holds which shard, a cluster's ledgers."""

    resend: float = seconds(1.0)
    """At most, between attempts to have a batch in doubt answered."""
    backoff_first: float = seconds(0.1)
    """At most, before the first new attempt to begin an epoch."""
    backoff_most: float = seconds(10.0)
    """At most, between attempts to begin one."""
    release: float = seconds(2.0)
    """For giving up the lease, when all else is over."""
    failover_pause: float = seconds(1.0)
    """At most, between attempts to begin an epoch where another server may be named at any moment."""
    standby_poll: float = seconds(0.1)
    """Between a standby's attempts to take the lease: so soon it sees that a holder has died. Each costs 0.1 ms."""
    standby_count: float = seconds(5.0)
    """Between looks at how many bridges stand by, for the status page."""
    leave_to_share: float = seconds(0.15)
    """How long a standby that could go on leaves a free lease to the bridges whose share it is."""
    yield_to_heir: float = seconds(2.0)
    """How long a bridge that could not go on leaves a free lease to one that said that it could."""
    forsaken: float = seconds(15.0)
    """How long a free lease is left to them. Then any bridge takes it, and keeps it for `unable`.
    As long, a bridge keeps a shard that another one is to have, until that one could go on. If none listens by then, it
    is kept for `unable`."""
    yield_to_listener: float = seconds(0.3)
    """How long a bridge that has just begun to listen leaves a free lease to those that listened before. One may not
    have said yet that it could go on."""
    relief_check: float = seconds(1.0)
    """Between looks at whether the login of a session ends, or its password or certificate was replaced."""
    relief_lead: float = seconds(30.0)
    """Before a login ends, another session relieves this one: so long, or for the last quarter of its life."""
    relief_retry: float = seconds(5.0)
    """Before another attempt to open one, where the last one has failed."""
    successor_check: float = seconds(0.5)
    """Between a standby's looks at whether another server is the primary."""
    share_check: float = seconds(0.5)
    """Between looks at whether another bridge is to have the shard."""
    hand_over: float = seconds(2.0)
    """How long the shard waits for the broker before another bridge gets it: its deadlines pass meanwhile."""
    hand_over_poll: float = seconds(0.02)
    broker_patience: float = seconds(3.0)
    """How long a bridge that has lost its broker keeps the lease, where another one says that it reaches its own."""
    sign_of_life: float = seconds(1.0)
    """Between a bridge's signs of life."""
    life_ms: int = milliseconds(3_000)
    """How long one counts: less than a lease, so that a dead bridge has stopped counting when its leases end."""
    join: float = seconds(3.0)
    """How long a bridge that has just started does not count, unless it could go on with all shards before."""
    unable: float = seconds(60.0)
    """How long a bridge that cannot work leaves the shards to others, before it tries again to get some. Where it lacks
    its broker, it is at least so long."""
    alone: float = seconds(5.0)
    """Without an answer for so long, a bridge takes whatever is free: just the part of a cluster may be down that
    knows which bridges there are."""
    bless: float = seconds(1.0)
    """Between protections of the bridge's own keys, where Redis may evict any key: one that was made anew has none."""
    eviction_check: float = seconds(60.0)
    """Between looks at whether it may."""
    exchange: float = seconds(1.0)
    """Between exchanges of watermarks, from bridge to bridge of a cluster."""
    retire: float = seconds(5.0)
    """How long a source may take to handle what it has received, when its ledger has become that of no primary."""
