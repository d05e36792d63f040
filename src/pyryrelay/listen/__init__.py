"""Listening sockets: accepting connections, refusing them as early as possible, and TLS."""
