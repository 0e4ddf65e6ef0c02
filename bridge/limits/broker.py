"""Limits of delivery and of the sinks: everything that talks to a broker."""

from dataclasses import dataclass

from bridge.limits.scaled import KIB, MIB, Scaled, milliseconds, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLimits(Scaled):
    """From the outbox to the sink."""

    batch: int = 1_000
    """Messages in one publish."""
    batch_bytes: int = 4 * MIB
    """Bytes of their bodies."""
    in_flight: int = 10_000
    """The most messages under way at once: about what a broker acks in a tenth of a second. No more are sent while more
    than that are acked and not settled."""
    in_flight_bytes: int = 32 * MIB
    """Bytes of their bodies."""
    read_entries: int = 50
    """Outbox entries in one read. An entry holds up to 500 events, and up to 1 MiB of keys."""
    settle_entries: int = 500
    """Entries settled in one step."""
    settle_gather: float = seconds(0.005)
    """Between two settlements: what is acked less than that after one waits, at most as long, so that further acks are
    settled with it. One script for many costs little more than one for a single entry. Messages acked less than that
    before a kill are sent once more, under the same ids."""
    watch: float = seconds(1.0)
    """Between looks at what is late, or stuck for too long."""
    late: float = seconds(10.0)
    """A message without an answer for that long counts as stuck, and takes no room in flight. What is stuck for that
    long is reported."""
    stuck: int = 50_000
    """Messages that are stuck, or wait behind others of their keys, and are kept in memory. More are set aside."""
    stuck_bytes: int = 64 * MIB
    """Bytes of their bodies, likewise."""
    aside: int = 250_000
    """Messages that are stuck and only in the outbox, at which reading stops. Each costs some 200 bytes, or
    800 if it is alone in its entry."""
    aside_bytes: int = 32 * MIB
    """Bytes of their keys, likewise."""
    stuck_retry_first: float = seconds(0.1)
    """Before a refused message is tried again; twice as long each time."""
    stuck_retry_most: float = seconds(30.0)
    give_up: int = 5_000
    """Messages that become dead letters at one look, as they were stuck for too long: some ten milliseconds of work."""
    flow_pause: float = seconds(60.0)
    """At most that much of the time between two acks counts as time in which the broker accepted messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JetStreamLimits(Scaled):
    """The NATS connection and the messages on it."""

    connect: float = seconds(10.0)
    """For all servers of the list together: `connect` may hang in a TLS handshake (nats-py #718)."""
    connect_step: float = seconds(2.0)
    """For each step with one server. The client takes whole seconds."""
    close: float = seconds(2.0)
    ping: float = seconds(1.0)
    pong: float = seconds(4.0)
    """A frozen server is noticed within the sum of both. The library's own pings make it reconnect in its own way."""
    api: float = seconds(3.0)
    """For an answer of JetStream's API."""
    ack: float = seconds(5.0)
    """Without any new ack, before one message is sent again, to find out whether acks come at all; and before what was
    sent again is sent once more."""
    resend_most: float = seconds(30.0)
    """The longest time between two resends of a message that gets no ack while others do. It doubles each time."""
    tick: float = seconds(0.25)
    """How often missing acks are looked for."""
    denied: float = seconds(1.0)
    """How long a message must be without an ack after a denial of its subject, which alone is no proof."""
    window: int = 1_000
    """Messages without an answer: that many acks may arrive at once, and keep the event loop busy for milliseconds.
    More gains nothing, and a stream refuses messages that are more than 10,000 ahead of it."""
    unsent_bytes: int = MIB
    """In the client's buffer."""
    yield_bytes: int = 48 * KIB
    """The event loop, which also reads the notifications, gets its turn after that much: about every millisecond."""
    pause: float = seconds(0.002)
    """Between looks at whether there is room to send."""
    message_bytes: int = 8 * MIB
    """The largest message of the server: acks are small, and a broken or hostile server could fill the memory."""
    unbound: float = seconds(5.0)
    """How long the stream must have the subjects that it has, before a message of another one becomes a dead letter."""
    denials: int = 10_000
    """Subjects of denied publishes that are remembered. The rest is sent again until it counts as not acked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaLimits(Scaled):
    """The producer and the records on their way."""

    greeting: float = seconds(5.0)
    """For each of the bootstrap servers."""
    token: float = seconds(4.0)
    """For a token to log in with. Less than a greeting may take, so that an error blames its service."""
    start: float = seconds(15.0)
    close: float = seconds(2.0)
    request: float = seconds(10.0)
    """For a broker's answer, before it is asked again, or another one is."""
    answer_ms: int = milliseconds(5_000)
    """For an answer about topics."""
    metadata: float = seconds(30.0)
    """For one refresh of the metadata."""
    probe: float = seconds(1.0)
    """Between looks at whether any broker answers."""
    stall: float = seconds(45.0)
    """How long nothing may be acked while the brokers answer. The library sends again meanwhile, without making copies;
    and a cluster needs up to half a minute to do without a replica that is lost."""
    topic_ready: float = seconds(5.0)
    """From the creation of a topic until all of its partitions have a leader."""
    topic_missing: float = seconds(5.0)
    """How long a topic that depends on the key must be missing before its messages become dead letters."""
    topic_recheck: float = seconds(30.0)
    """After that a topic that accepts nothing is looked at again."""
    topic_poll: float = seconds(0.05)
    topics_at_once: int = 50
    records_bytes: int = 256 * KIB
    """Of a batch of records, unless it is one message alone. More gains nothing."""
    turn_messages: int = 128
    """The event loop, which also reads the notifications, gets its turn after that many: about every millisecond."""
