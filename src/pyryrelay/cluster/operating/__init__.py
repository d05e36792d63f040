"""What operators see of a cluster, and what they do with it."""
