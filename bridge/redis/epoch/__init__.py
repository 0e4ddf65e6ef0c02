"""One epoch: one fence, one subscription, and everything that runs between its begin and its end."""
