"""
Makes ``twistd pyryrelay`` known to Twisted.

``twistd`` imports this file for every command, also for those of other services, so it imports nothing but
`ServiceMaker`; the relay itself is imported once it has been chosen. This folder and its parent must never
hold an ``__init__.py``: they extend Twisted's own package and would replace it.
"""

from __future__ import annotations

from twisted.application.service import ServiceMaker

pyryrelay = ServiceMaker(
    "pyryrelay",
    "pyryrelay.twistd",
    "A WebSocket relay that limits floods, slow peers and spam.",
    "pyryrelay",
)
