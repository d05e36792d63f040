"""Several processes of one host as one relay: a supervisor, and workers that serve the connections."""
