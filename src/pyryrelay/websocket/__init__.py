"""Upgraded connections: opening handshake, frames in both directions, backpressure, deadlines, and closing."""
