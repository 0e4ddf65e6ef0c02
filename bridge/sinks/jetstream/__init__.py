"""The NATS JetStream sink.

Guaranteed: `publish()` returns when the stream has acked, hence stored, every message. Each carries its id as
`Nats-Msg-Id`, so that the stream drops the copies that come within its duplicate window. A server that freezes is
noticed within about five seconds, one that dies at once.

The stream that it creates (`BRIDGE_NATS_PROVISION`) has file storage, one replica, a duplicate window of ten minutes
and no limits: nothing is dropped by the bridge's choice. Create the stream yourself to have replicas, a maximum age or
size; an existing stream is checked and never changed.

How it is built, from the outside in: `sink` keeps one `session` at a time; a session is one TCP connection, from
`connect` to the reason why it ended, and is never repaired, only followed by the next. Its `window` sends batches
(`flight`), with `headers`, reads the `replies` and knows what was denied (`denials`); `stream` is the stream itself.
"""

from bridge.sinks.jetstream.sink import JetStreamSink

__all__ = ["JetStreamSink"]
