"""Frames on the wire (RFC 6455 section 5): reading what peers send, and writing what they are sent."""
