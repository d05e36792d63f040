"""The listening sockets of workers: who opens them, who accepts, and who gets a connection."""
