"""The client of Redis and Valkey: one connection for each server, and none of its troubles for those who call."""
