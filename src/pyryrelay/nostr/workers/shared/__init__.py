"""Children that all workers of a relay share: the store's writer, and the exchange of what is not stored."""
