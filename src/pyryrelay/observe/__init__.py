"""Logs, metrics, health and counts of refusals: what operators can see of a running relay."""
