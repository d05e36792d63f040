"""Connections that arrive at one instance of a cluster and are served by another: the bytes are spliced."""
