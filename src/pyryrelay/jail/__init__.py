"""Keeping the jail: its file, and what the kernel drops because of it."""
