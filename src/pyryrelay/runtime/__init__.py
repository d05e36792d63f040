"""Services of the reactor, the process and the operating system that several rooms share."""
