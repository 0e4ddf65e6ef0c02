"""What operators ask of Redis and of the ledger: for the commands, never for the service."""
