"""The source: finds expirations in Redis and claims them into the outbox.

Five floors, imports only go downwards (import-linter holds it):

* `source`: epoch after epoch for each shard, the lease, and who holds which shard.
* `epoch`: one fence, one subscription, and everything that runs between its beginning and its end. Beside it
  `admin`, for the commands: it inspects and removes, and the service never imports it.
* `ledger`: the atomic scripts (`lua/`), the outbox that they fill, and its entries.
* `wire`: connections, the subscription's bytes, Sentinel's and a cluster's answers.
* `protocol`: the rules, as data and decisions. Pure: no client library, no telemetry, no I/O.

PROTOCOL.md states the rules. This room alone knows the redis client library.
"""
