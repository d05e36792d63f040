"""Limits that hold for all members of a cluster together: quotas, caps per address, and the jail."""
