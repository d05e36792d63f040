"""The admin listener: metrics, health, and the API behind the ``pyryrelay`` command."""
