"""What is kept in Redis: the deadline ledger behind its atomic scripts, the outbox, the dead letters."""
