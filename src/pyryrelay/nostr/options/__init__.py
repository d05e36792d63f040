"""The options of the Nostr relay, by theme; ``options`` has all of them. PURE."""
