"""Several machines as one relay."""
