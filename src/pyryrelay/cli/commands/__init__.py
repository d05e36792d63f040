"""The commands of ``pyryrelay``, one module each.

Each has a function ``add`` (`pyryrelay.cli.protocol_commands.AddCommand`), as commands of protocols do. A module is
imported when its command is used, and only then, so what one command needs does not make the others slow.
"""
