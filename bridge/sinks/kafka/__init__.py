"""The Kafka sink, on aiokafka's batch API.

Guaranteed: `publish()` returns when every message is stored as the topic's settings ask (acks=all). The producer is
idempotent: what it resends itself is stored once. A message that a topic refuses, or a partition without a leader,
stops nothing else (`sequence`). But a producer that cannot know whether something was stored is thrown away, because
its sequence numbers have a hole from then on, and a new producer sends again what it had under way. Then a copy may be
stored, under the same `ce_id`, and come after later events of its key. A consumer drops what it has seen. A broker that
dies is noticed within about two seconds, one that freezes within about twelve.

A message, as the CloudEvents Kafka binding says: its key is the Redis key, its partition the one that other clients
would choose (`partitioner`), its timestamp the time of sending (a deadline may be older than the topic's retention),
its headers (`records`) `ce_id` and `content-type`, in binary mode all attributes as `ce_*`. Its topic (`names`) may
depend on the part of the key up to the first colon.

A topic that it creates (`BRIDGE_KAFKA_PROVISION`) keeps messages by time (`cleanup.policy=delete`). If
`BRIDGE_KAFKA_REPLICATION` sets the number of replicas, an ack means that all of them but one have the message
(`min.insync.replicas`). An existing topic is checked and never changed. Brokers may also create topics themselves
(`auto.create.topics.enable`); the bridge leaves that to them.

With `BRIDGE_KAFKA_DEDUPLICATION=transaction` each id is committed once. Each shard has a transactional producer
(`writer`), which fences all former ones of its name; then the end of the topic is read (`tail`), and only what is not
there is sent, in one transaction at a time (`transactional`). The timestamp of a message is that of its claim then.

How it is built, from the outside in: `sink` makes sessions; a session is one producer, from `connect`
to the reason why it ended; it is never repaired, only replaced. `loading` sorts a batch into the `lanes` of
its partitions, where `records` are sent one after the other; `topics` finds, creates and checks topics, on the
`cluster`; `leftovers` cleans up after the library. `inspection` is for `expiry-bridge check`, and changes nothing.
"""

from bridge.sinks.kafka.sink import KafkaSink

__all__ = ["KafkaSink"]
