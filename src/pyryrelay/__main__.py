"""``python -m pyryrelay``: the command ``pyryrelay``, where it is not on PATH."""

from __future__ import annotations

import sys

from pyryrelay.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
