"""The rules of the ledger protocol: what a notification means, and what is remembered of it. Pure: no I/O."""
