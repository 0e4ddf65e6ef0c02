"""What the Redis of `BRIDGE_SINK=redis` must be."""
