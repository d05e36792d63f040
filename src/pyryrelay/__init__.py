"""
A WebSocket relay under Twisted and Autobahn that nobody can push over.

Run it with ``twistd pyryrelay``. Each folder answers one question and may be read on its own:

- ``guard``: may this client come in? Pure decisions without I/O; any server can import it.
- ``listen``, ``http``, ``websocket``: connections, from accept to the last frame. They do what ``guard`` decides.
- ``pyry``, and every other protocol in ``mounts.py``: what is done with the messages. ``protocol`` is the seam.
- ``config``, ``cli``, ``admin``, ``observe``, ``jail``: what operators set, run, ask, see, and keep.
- ``runtime``: timers, clocks, queues and sockets for all of them.

``service`` assembles them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["__version__"]

if TYPE_CHECKING:
    #: The release as a string, for example ``"26.11.0"``.
    __version__: str


def __getattr__(name: str) -> str:
    """Return the version, for which alone ``incremental`` is imported: the guard must work without it."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pyryrelay._version import __version__ as version

    return version.public()
