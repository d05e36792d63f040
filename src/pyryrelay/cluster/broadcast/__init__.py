"""What members tell each other by streams that a server keeps: `pyryrelay.broadcast`, by way of Redis."""
