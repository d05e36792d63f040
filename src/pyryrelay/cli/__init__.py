"""Command lines: the options of twistd pyryrelay, the check of the machine, and the pyryrelay command."""
