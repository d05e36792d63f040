"""How binaries and their phones move to another process of the relay, and meet there."""
