"""The sockets between the workers of one host, and the connections that are handed over through them."""
