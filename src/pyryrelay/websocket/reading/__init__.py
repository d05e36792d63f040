"""When, and how much at once, to read from a peer; and when what it sent is no longer worth the work."""
