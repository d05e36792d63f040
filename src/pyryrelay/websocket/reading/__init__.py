"""When to read from a peer, how much at once, and how much work to do for one that may be gone."""
