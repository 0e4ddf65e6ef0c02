"""What Redis must be for the bridge."""
