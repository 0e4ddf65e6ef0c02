"""What Kafka must be for the bridge."""
