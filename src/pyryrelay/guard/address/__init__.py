"""Client addresses: forwarding headers, the keys that clients are counted under, and lists of networks."""
