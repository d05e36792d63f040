"""What is left of Autobahn's protocol when everything is taken off that it does anew for each connection.

Autobahn copies some thirty options into each protocol object, makes Deferreds that nobody waits for, and starts timers.
Here they are set once, on the class, and `pyryrelay.websocket.connection` has its own timers and reads frames itself.
What stays is the part that has to be right word by word: close frames, and the verdict on a header that breaks the
protocol.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.protocol import TrafficStats
from autobahn.websocket.types import ConnectionRequest

from pyryrelay.close_codes import CloseCode

__all__ = ["AutobahnBase", "connection_request"]


@lru_cache(maxsize=16)
def connection_request(path: str) -> ConnectionRequest:
    """A request as Autobahn describes it, without what the client wrote."""
    return ConnectionRequest("", {}, "", path, {}, 13, "", [], [])


class _NoDeferred:
    """A Deferred's place, for those of Autobahn's that nobody waits for."""

    def callback(self, result: object) -> None:
        """Nobody is told."""


class _ClassDefaults:
    """Autobahn's options and initial state, as attributes of the class."""

    failByDrop = False  # noqa: N815
    echoCloseCodeReason = False  # noqa: N815
    closeHandshakeTimeout = 0  # noqa: N815  # the wheel watches
    requireMaskedClientFrames = True  # noqa: N815
    maskServerFrames = False  # noqa: N815
    applyMask = True  # noqa: N815
    logFrames = False  # noqa: N815
    logOctets = False  # noqa: N815
    websocket_version = 13
    trafficStats = TrafficStats()  # noqa: N815  # nobody looks at it
    is_closed = _NoDeferred()
    peer = ""
    data = b""
    current_frame = None
    inside_message = False
    wasClean = False
    wasNotCleanReason: str | None = None  # noqa: N815
    closedByMe = False  # noqa: N815
    failedByMe = False  # noqa: N815
    droppedByMe = False  # noqa: N815
    localCloseCode: int | None = None  # noqa: N815
    localCloseReason: bytes | None = None  # noqa: N815
    remoteCloseCode: int | None = None  # noqa: N815
    remoteCloseReason: str | None = None  # noqa: N815
    closeHandshakeTimeoutCall = None  # noqa: N815
    _perMessageCompress = None  # noqa: N815


class AutobahnBase(_ClassDefaults, WebSocketServerProtocol):  # type: ignore[misc]  # Autobahn's own bases disagree
    """See the module's docstring. None of Autobahn's initialisers needs to run."""

    def judge(self, raw: bytes, inside_message: bool) -> None:
        """Let Autobahn say what is wrong with a frame's header, and close. ``raw`` is all of the header."""
        self.inside_message = inside_message
        self._dataReceived(raw)
        self.data = b""
        self.current_frame = None
        if self.state == self.STATE_OPEN:
            self._fail_connection(int(CloseCode.PROTOCOL_ERROR), "bad frame header")

    def onFrameBegin(self) -> None:
        """Autobahn judges headers here, and takes in no frame."""

    def onFrameData(self, payload: bytes) -> Any:
        """Neither what is in one."""
        return False
