"""Sending to one peer: what waits, in which order it goes out, and how fast the peer takes it."""
