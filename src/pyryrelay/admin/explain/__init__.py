"""Explain to operators why the gate admits or refuses a client: `GET /explain`."""
