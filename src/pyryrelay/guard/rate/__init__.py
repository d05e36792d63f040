"""Rate limits: quotas, token buckets for many keys in bounded memory, reservations, and throttles of connections."""
