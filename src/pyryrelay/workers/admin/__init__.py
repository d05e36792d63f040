"""What operators see of a relay with several workers, and what they can do to it."""
