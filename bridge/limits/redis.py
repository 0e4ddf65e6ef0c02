"""Limits of the source: everything that talks to Redis."""

from dataclasses import dataclass

from bridge.limits.scaled import KIB, MIB, Scaled, milliseconds, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class WireLimits(Scaled):
    """Connections to Redis, Sentinel and a cluster's nodes."""

    command: float = seconds(5.0)
    """For a reply, or a connection. Then the epoch ends."""
    handshake: float = seconds(4.0)
    """Less than a command may take, so that the handshake is blamed, and not Redis for its silence."""
    subscribe: float = seconds(5.0)
    """For the connection, the login and all confirmations of a subscription together."""
    ping: float = seconds(1.0)
    """Between a subscription's own PINGs."""
    silence: float = seconds(5.0)
    """Without a single byte from a server that was asked: it is taken for dead."""
    backlog_hints: int = 500_000
    """Notifications received and not handled yet, at which the connection is ended."""
    backlog_bytes: int = 64 * MIB
    """Bytes of their keys, likewise."""
    flags_check: float = seconds(5.0)
    """Between looks at `notify-keyspace-events`, which an operator may have changed."""
    primary_check: float = seconds(1.0)
    """Between looks at the server's role, and at what the sentinels say."""
    role: float = seconds(1.0)
    """For that answer. A frozen server, soon to be replaced, must not hold up the look for the next one."""
    sentinel: float = seconds(1.0)
    """For a sentinel's answer, the connection included."""
    sentinel_connections: int = 2
    grace: float = seconds(0.25)
    """For other nodes' answers, once one is in: a frozen one must not hold up what the others say."""
    topology: float = seconds(1.0)
    """Between looks at the cluster, and for a node's answer, the connection included."""
    topology_doubt: float = seconds(0.1)
    """Between looks, at least, when a part of the bridge doubts what the last one said."""
    node_connections: int = 8
    """To one node: polls, signs of life, and what several ledgers hand over."""
    cluster_down: float = seconds(0.05)
    """Before a cluster is asked again that is down for a moment, as while a replica is promoted anywhere in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLimits(Scaled):
    """The scripts, and the outbox as delivery reads it."""

    lease_ms: int = milliseconds(5_000)
    """How long a lease is valid without a sign of life. A standby takes over at the latest this long after a crash."""
    adopted: int = 250
    """Entries of another ledger in one script."""
    noting_ms: int = milliseconds(600_000)
    """In a cluster, how long ends of keys are noted after slots moved, or a bridge took the lease. So late may
    the entry of another node's ledger come without announcing such an end once more."""
    noted_keys: int = 50_000
    """Of those ends, the last ones that are kept."""
    outbox_poll: float = seconds(1.0)
    """After which the outboxes are looked at unasked, should a wake-up ever be missing."""
    outbox_retry: float = seconds(0.5)
    """Before one of several outboxes that could not be read is asked again."""
    settle_patience: float = seconds(0.2)
    """That settling waits for one server of several."""
    settle_entries: int = 500
    """Entries settled in one step."""
    owed_entries: int = 1_000
    """Settlements kept of one shard. Older ones are forgotten: the entries are sent once more, under the same ids."""
    reply_bytes: int = MIB
    """Of a reply with entries of the outbox, or keys of a scan, and of dead letters settled in one step: about that
    much, unless one alone is larger."""
    fields_kept: int = 500
    """Of an entry that cannot be read. Lua hands some thousands of words to a command at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochLimits(Scaled):
    """One epoch: hints, touches, marks, the canary, the audit, the scan, slots that move."""

    batch_keys: int = 500
    """Operations in one script: a bound on how long it keeps Redis busy (about 2 ms), far below what Lua can unpack."""
    batch_bytes: int = MIB // 2
    """Bytes of keys in one script, and in its reply, give or take one key. With all else, less than 1 MiB: no server's
    limit for a query is lower."""
    least_batch_bytes: int = 16 * KIB
    """Where scripts get no reply, half as many bytes are tried, and half of that, down to this."""
    batch_recovery: float = seconds(60.0)
    """After such a failure, before twice as many are tried again; after each further one, twice as long…"""
    batch_patience: float = seconds(3600.0)
    """…up to this."""
    found_keys: int = 250
    """Keys that a scan found in one script: no one waits for them, but others wait for Redis meanwhile."""
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
    """Within which a mark has to come back. Else notifications are off, whatever the connection says."""
    canary: float = seconds(2.0)
    """From one canary to the next."""
    canary_ttl_ms: int = milliseconds(100)
    canary_voids: int = 5
    """So many in a row that were deleted, and did not expire: what is heard is another server's stream."""
    audit: float = seconds(1.0)
    """Between two readings, at least: they cost Redis about a tenth of a millisecond."""
    audit_short_epoch: float = seconds(60.0)
    """A counter that is wrong again so soon…"""
    audit_most_short: int = 3
    """…and this often in a row, counts something else than what is notified: the audit stops believing it."""
    remembered_keys: int = 50_000
    """Keys of moving slots of which is remembered what became of them, the last ones."""
    placed: int = 500
    """Entries of moved keys placed at once."""
    migration_pause: float = seconds(1.0)
    """Before what could not be placed, or adopted, is tried again. Within it, what was notified has been handled."""
    stray_search: float = seconds(5.0)
    """Between walks, scans and searches for strays that moving slots cause: in a rebalance, they never end."""
    stray_keys: int = 1_000
    """Keys that Redis looks through for strays in one call."""


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
    """Between looks at whether there is a backlog. Each uses it: Redis drops one that is not used for an hour."""
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
    yield_to_standby: float = seconds(0.3)
    """Before a bridge whose subscription was lost asks for the lease again, if others listen."""
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
    unable: float = seconds(60.0)
    """How long a bridge that cannot work leaves the shards to others, before it tries again to get some."""
    alone: float = seconds(5.0)
    """Without an answer for so long, a bridge takes whatever is free: just the part of a cluster may be down that
    knows which bridges there are."""
    exchange: float = seconds(1.0)
    """Between exchanges of watermarks, from bridge to bridge of a cluster."""
    retire: float = seconds(5.0)
    """How long a source may take to handle what it has received, when its ledger has become that of no primary."""
