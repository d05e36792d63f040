"""Register ``twistd pyryrelay`` with Twisted.

``twistd`` imports this file for every command, including those of other services, so it imports only `ServiceMaker`.
The relay itself is imported when it has been chosen. This folder and its parent must never contain an ``__init__.py``:
they extend Twisted's own package and would replace it.
"""

from __future__ import annotations

from twisted.application.service import ServiceMaker

pyryrelay = ServiceMaker(
    "pyryrelay",
    "pyryrelay.start.twistd",
    "A WebSocket relay that limits floods, slow peers and spam.",
    "pyryrelay",
)
