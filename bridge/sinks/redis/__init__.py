"""The Redis Streams sink.

Guaranteed: each message is appended once, for as long as the server keeps what it has acked. One script appends to the
stream and remembers, in a hash beside it, up to where each line of the outbox is appended (`append.lua`). So a repeat
is known, however late it comes, and from whichever bridge. Both are of one slot of a cluster, and lost together.

The server may be the source's or another one, alone, behind sentinels, or a cluster; an ack is as durable as what that
server says of itself. A stream is created by its first message, and trimmed to `BRIDGE_SINK_REDIS_MAXLEN`.

How it is built: `sink` keeps one `session` at a time, which is never repaired, only followed by the next. `servers`
finds the server that has a stream, `keys` names streams, `entries` says what a message looks like in one.
"""

from bridge.sinks.redis.sink import RedisSink

__all__ = ["RedisSink"]
