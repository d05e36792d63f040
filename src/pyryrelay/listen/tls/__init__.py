"""TLS for ``ssl:`` endpoints."""
