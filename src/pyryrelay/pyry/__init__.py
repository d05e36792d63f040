"""The pyrycode relay protocol: it pairs phones with binaries and passes frames between them."""
