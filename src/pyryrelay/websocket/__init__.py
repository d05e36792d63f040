"""Upgraded connections: the handshake, frames in, frames out with backpressure, deadlines, and the end."""
