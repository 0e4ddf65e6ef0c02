"""What NATS must be for the bridge."""
