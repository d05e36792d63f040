"""The quotas of the relay, and the buckets that they are kept in."""
