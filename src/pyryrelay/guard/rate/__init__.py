"""How often: quotas, token buckets for many keys in bounded memory, and what waits for tokens."""
