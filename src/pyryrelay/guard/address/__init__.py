"""Who a client is: addresses, forwarding headers, and lists of networks."""
