"""The Redis Streams sink.

Guaranteed: each message is appended once, as long as the server keeps what it has acked. One script appends to the
stream, and stores in a hash beside it how far each line of the outbox is appended (`append.lua`). So a repeat is
recognised, no matter how late it comes, and from which bridge. Stream and hash are in one slot of a cluster, and are
lost together.

The server may be the source's or another one, alone, behind sentinels, or a cluster. An ack is as durable as that
server's data. A stream is created by its first message, and trimmed to `BRIDGE_SINK_REDIS_MAXLEN`.

How it is built: `sink` keeps one `session` at a time, which is never repaired, only replaced. `servers` finds the
server that has a stream, `keys` names streams, `entries` defines what a message looks like in a stream.
"""

from bridge.sinks.redis.sink import RedisSink

__all__ = ["RedisSink"]
