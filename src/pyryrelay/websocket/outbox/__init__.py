"""Sending to one peer: what waits, in which order it is sent, and how fast the peer takes it."""
