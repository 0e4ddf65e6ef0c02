"""One epoch: one fence, one subscription, and everything that runs between its beginning and its end."""
