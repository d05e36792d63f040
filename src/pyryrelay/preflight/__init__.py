"""What is found before the start: problems of settings and machine, each with its consequence and its fix."""
