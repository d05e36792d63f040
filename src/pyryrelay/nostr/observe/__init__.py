"""What operators see of the Nostr relay: metrics and log lines (spec section 18)."""
