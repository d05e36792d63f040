"""The formats of the log besides Twisted's text: one JSON object on each line, and the journal of systemd."""
