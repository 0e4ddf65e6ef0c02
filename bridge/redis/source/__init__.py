"""The source: epoch after epoch for each shard, the lease, and who holds which shard."""
