"""Gaps filled from Redis's replication backlog: what nobody has listened to, from what Redis still has."""
