"""What any room needs of the reactor, the process and the operating system: timers, clocks, queues, sockets."""
