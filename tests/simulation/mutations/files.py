"""Files of `bridge/`, and what is substituted in several of them."""

APPLY, TOUCH, ACQUIRE, RELEASE = (f"redis/ledger/lua/{name}.lua" for name in ("apply", "touch", "acquire", "release"))
TELEMETRY, HANDSHAKE = "telemetry/shard.py", "redis/wire/handshake.py"
APPEND, REDIS_SINK = "sinks/redis/append.lua", "sinks/redis/sink.py"
TAKEOVER, STANDBY = "redis/protocol/takeover.py", "redis/epoch/standby.py"
RELIEF = "redis/source/relief.py"
INTERPRETER, MARKS = "redis/protocol/interpreter.py", "redis/protocol/marks.py"
EPOCH = "redis/epoch/epoch.py"
CAPTURE, HELD_VALUES = "redis/ledger/lua/capture.lua", "redis/ledger/lua/include/held_values.lua"
FIELDS, EPOCH_FIELDS = "redis/ledger/lua/fields.lua", "redis/epoch/fields.py"
FIELD_HINTS = "redis/protocol/fields.py"
CAPTURES = "redis/protocol/captures.py"
ENTRIES, SHARD, OUTBOX = "redis/ledger/entries.py", "redis/source/shard.py", "redis/ledger/outbox.py"
SCRIPTS, DELIVERY, SCHEDULE = "redis/ledger/scripts.py", "delivery/publisher.py", "redis/protocol/schedule.py"

Substitution = tuple[str, str, str]
"""File, text, other text."""

SEQUENCE, FENCE = "redis/ledger/lua/include/sequence.lua", "redis/ledger/lua/include/fence.lua"
OWN_IDS = (APPLY, "fence .. '-' .. seq, unpack(fields)", "call('HGET', lease, 'fence') .. '-*', unpack(fields)")
"""Else Redis itself would refuse the id of an entry that was there before."""
