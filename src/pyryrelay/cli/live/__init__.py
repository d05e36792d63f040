"""Live commands: the relay at its latest moments, the screen, and the keys."""
