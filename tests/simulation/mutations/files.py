"""Files of `bridge/`, and what is substituted in several of them."""

APPLY, TOUCH, ACQUIRE, RELEASE = (f"redis/ledger/lua/{name}.lua" for name in ("apply", "touch", "acquire", "release"))
TELEMETRY = "telemetry/shard.py"
TAKEOVER, STANDBY = "redis/protocol/takeover.py", "redis/epoch/standby.py"
INTERPRETER, MARKS = "redis/protocol/interpreter.py", "redis/protocol/marks.py"
EPOCH = "redis/epoch/epoch.py"
ENTRIES, SHARD, OUTBOX = "redis/ledger/entries.py", "redis/source/shard.py", "redis/ledger/outbox.py"
SCRIPTS, DELIVERY, SCHEDULE = "redis/ledger/scripts.py", "delivery/publisher.py", "redis/protocol/schedule.py"

Substitution = tuple[str, str, str]
"""File, text, other text."""

SEQUENCE, FENCE = "redis/ledger/lua/include/sequence.lua", "redis/ledger/lua/include/fence.lua"
OWN_IDS = (APPLY, "fence .. '-' .. seq, unpack(fields)", "call('HGET', lease, 'fence') .. '-*', unpack(fields)")
"""Else Redis itself would refuse the id of an entry that was there before."""
