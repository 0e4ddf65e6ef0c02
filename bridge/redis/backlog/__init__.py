"""Gaps filled from Redis's replication backlog: what no bridge has heard, from what Redis still holds."""
