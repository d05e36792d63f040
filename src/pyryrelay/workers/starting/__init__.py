"""How a supervisor starts the process of a worker, and what the worker gets from it."""
