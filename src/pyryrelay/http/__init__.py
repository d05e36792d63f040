"""Accepted connections up to the upgrade: request heads, routing, plain answers and refusals."""
