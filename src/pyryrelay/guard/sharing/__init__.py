"""What several servers know of one another's clients."""
