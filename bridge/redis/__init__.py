"""The source: finds expirations in Redis and claims them into the outbox.

`source.py` runs one epoch after the other; `epoch.py` is one of them: it reads the notifications (`subscription.py`),
and changes the ledger by atomic scripts (`ledger.py`, `lua/`). `outbox.py` is what delivery sees. This room alone knows
the redis client library.
"""
