"""How the relay starts as a process: under ``twistd``, and in the foreground."""
