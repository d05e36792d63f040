"""
A WebSocket relay under Twisted and Autobahn that nobody can push over.

Run it with ``twistd pyryrelay``. Each folder may be read on its own:

- ``guard``: may this address come in? Pure decisions, no I/O; any server can import it.
- ``wire``: sockets, HTTP heads, WebSocket frames. Carries out what ``guard`` decides.
- ``pyry``: the pyrycode relay protocol, who is paired with whom.
- ``ops``: what the operator sees.

``service.py`` is the only module that knows all of them.
"""

from __future__ import annotations

from pyryrelay._version import __version__ as _version

#: The release as a string, for example ``"26.11.0"``.
__version__: str = _version.public()

__all__ = ["__version__"]
