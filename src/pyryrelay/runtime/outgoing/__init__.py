"""Connections that the relay makes itself."""
