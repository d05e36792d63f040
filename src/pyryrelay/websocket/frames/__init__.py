"""WebSocket frames (RFC 6455 section 5): reading those of peers, and writing ours."""
