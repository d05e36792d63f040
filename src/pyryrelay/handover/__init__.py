"""How a relay hands its listening sockets, and then its peers, to a process that succeeds it."""
