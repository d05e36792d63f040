"""What operators see: logs, metrics, health and counts of refusals."""
