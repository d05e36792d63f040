"""Everything that the package uses of Autobahn beyond its documented API, and the base class of its connections.

It was read in the version `READ_IN`. Where a newer version has moved something, tests/websocket/test_autobahn_base.py
names it. No other module of the package touches what is listed here:

| of Autobahn | what is relied on |
|---|---|
| ``WebSocketServerProtocol.__init__``, ``connectionMade`` | need not run: all that they set is in `_ClassDefaults` |
| ``state`` and ``STATE_...`` | decide what the methods below do; ``sendCloseFrame`` goes from OPEN to CLOSING |
| ``factory.isServer`` | all that the methods below ask of a factory |
| ``sendCloseFrame`` | writes a close frame with any code, if OPEN; sets ``closedByMe``, ``localCloseCode`` |
| ``onCloseFrame`` | judges the peer's close frame, answers it if OPEN, calls ``dropConnection``; sets |
| | ``remoteCloseCode`` and ``remoteCloseReason``; takes 1014 for an invalid code |
| ``_fail_connection`` | sends a close frame if OPEN; Autobahn calls it for whatever breaks the protocol |
| ``_dataReceived`` | judges a header in ``data``, with ``inside_message`` and ``current_frame`` as they were set |
| ``onFrameBegin``, ``onFrameData`` | called for a header that passes; False stops there |
| ``failHandshake`` | writes a refusal with any fields, then calls ``dropConnection`` |
| ``sendData`` | all of the above write through it |
| ``dropConnection`` | ends the transport; everything else about the end is in it |
| ``log`` | an attribute of the object or the class; each of the above writes lines to it |
| ``HAS_NVX``, ``USES_NVX`` | whether Autobahn's native part is there, and in use |

What is left of Autobahn's protocol is the part that has to be right word by word: close frames, and the verdict on a
header that breaks the protocol. Autobahn copies some thirty options into each protocol object, makes Deferreds that
nothing waits for, and starts timers. Here the options are set once, on the class; connections have timers of their own
and read frames themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate
from functools import cache, lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import txaio
from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.util import encode_truncate
from autobahn.websocket import HAS_NVX, USES_NVX
from autobahn.websocket.protocol import TrafficStats
from autobahn.websocket.types import ConnectionRequest

from pyryrelay.close_codes import BAD_GATEWAY, TRY_AGAIN_LATER, CloseCode

if TYPE_CHECKING:
    _Server = WebSocketServerProtocol
else:
    _Server = object  # a mixin has no base of its own

__all__ = ["HAS_NVX", "READ_IN", "USES_NVX", "AutobahnBase", "GuardHooks", "connection_request"]

READ_IN: Final = "26.10.2"

_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_REASON_BYTES: Final = 123
"""What RFC 6455 section 5.5 leaves for the reason of a close frame."""


@lru_cache(maxsize=16)
def connection_request(path: str) -> ConnectionRequest:
    """Return a request as Autobahn describes it, without what the client wrote."""
    return ConnectionRequest("", {}, "", path, {}, 13, "", [], [])


@cache
def _silent_logger() -> Any:
    """Return a logger that writes nothing but what is critical."""
    return txaio.make_logger(level="critical")  # type: ignore[attr-defined]  # made when a framework is chosen


class GuardHooks(_Server):
    """The hooks of a `WebSocketServerProtocol` that `pyryrelay.websocket.guarded.Guarded` needs, as a mixin."""

    def denial_fields(self) -> Sequence[tuple[str, str]] | None:
        """Return the header fields that go with a refusal of the guard; None if the guard has refused nothing."""
        raise NotImplementedError

    def failHandshake(
        self, reason: str, code: int = 400, responseHeaders: Sequence[tuple[str, str]] | None = None
    ) -> None:
        """Answer with complete HTTP framing, and a phrase that holds nothing the client sent."""
        fields = [*(responseHeaders or ()), ("Content-Length", "0"), ("Connection", "close")]
        denial = self.denial_fields()
        if denial is not None:
            fields = [*denial, *fields]
            # Autobahn writes two lines for each refusal, and a flood of refusals would fill the disk.
            self.log = _silent_logger()
        date = ("Date", formatdate(usegmt=True))
        super().failHandshake(_PHRASES.get(code, "Refused"), code, [date, *fields])

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> Any:  # noqa: N803  # Autobahn's name for it
        """Treat 1014 as 1013: it is in IANA's registry of close codes, and Autobahn's list of them ends before it.

        A server that is told to echo close codes (``echoCloseCodeReason``) echoes 1013.
        """
        if code != BAD_GATEWAY:
            return super().onCloseFrame(code, reasonRaw)
        done = super().onCloseFrame(TRY_AGAIN_LATER, reasonRaw)
        if self.remoteCloseCode == TRY_AGAIN_LATER:
            self.remoteCloseCode = code
        return done


class _NoDeferred:
    """Stands in for a Deferred of Autobahn's that nothing waits for."""

    def callback(self, result: object) -> None:
        """Do nothing."""


class _NoFactory:
    """Stands in for Autobahn's factory."""

    isServer = True


class _ClassDefaults:
    """Autobahn's options and initial state, as attributes of the class."""

    factory: Any = _NoFactory()
    failByDrop = False  # noqa: N815
    echoCloseCodeReason = False  # noqa: N815
    closeHandshakeTimeout = 0  # noqa: N815  # the timer wheel sees to it
    requireMaskedClientFrames = True  # noqa: N815
    maskServerFrames = False  # noqa: N815
    applyMask = True  # noqa: N815
    logFrames = False  # noqa: N815
    logOctets = False  # noqa: N815
    websocket_version = 13
    trafficStats = TrafficStats()  # noqa: N815  # not used
    is_closed = _NoDeferred()
    state = WebSocketServerProtocol.STATE_CONNECTING
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
    """The part of Autobahn's protocol that connections use. None of its initialisers needs to run.

    Autobahn's ``state`` is kept in step for its own methods only, by `allow_messages` and `end_messages`.
    """

    log = txaio.make_logger(level="critical")  # type: ignore[attr-defined]
    _peer_close_code: int | None = None  # the code with which the peer began to close, legal or not

    # What a connection asks of Autobahn

    def allow_messages(self) -> None:
        """Let Autobahn send and judge frames: the handshake is complete."""
        self.state = self.STATE_OPEN

    def end_messages(self) -> None:
        """Let Autobahn send nothing any more."""
        self.state = self.STATE_CLOSED

    def send_close(self, code: int, reason: str) -> None:
        """Send a close frame, the only one; nothing if there was one. A reason that is too long is cut."""
        self.sendCloseFrame(code=int(code), reasonUtf8=encode_truncate(reason, _REASON_BYTES))

    def judge_close_frame(self, payload: bytes) -> None:
        """Take the peer's close frame, and answer it unless it is itself an answer."""
        code = int.from_bytes(payload[:2], "big") if payload else None
        begins = self.state == self.STATE_OPEN
        self.onCloseFrame(code, payload[2:] or None)  # type: ignore[arg-type]  # None is what Autobahn passes
        if begins and self.localCloseCode != CloseCode.INVALID_PAYLOAD:
            self._peer_close_code = CloseCode.NO_STATUS if code is None else code

    def judge_header(self, raw: bytes, inside_message: bool) -> None:
        """Let Autobahn choose the code and reason for a header that breaks the protocol. ``raw`` is all of it."""
        self.inside_message = inside_message
        self._dataReceived(raw)
        self.data = b""
        self.current_frame = None
        self.send_close(CloseCode.PROTOCOL_ERROR, "bad frame header")

    def close_status(self) -> tuple[int, str]:
        """Return the code and reason of the close frame that came first, the peer's or ours; 1006 without one."""
        if self._peer_close_code is not None:
            return self._peer_close_code, self.remoteCloseReason or ""
        if self.closedByMe:
            return self.localCloseCode or CloseCode.NO_STATUS, ""
        return CloseCode.ABNORMAL, ""

    # What Autobahn asks of a connection

    def write_control(self, data: bytes) -> None:
        """Send a control frame, or the answer to a handshake that was denied."""
        raise NotImplementedError

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Send what Autobahn has made."""
        self.write_control(data)

    def dropConnection(self, abort: bool = False) -> None:
        """Send nothing more. The connection ends its transport itself."""
        self.end_messages()

    def onFrameBegin(self) -> None:
        """Do nothing: Autobahn judges headers here, and takes no frames."""

    def onFrameData(self, payload: bytes) -> Any:
        """Stop parsing."""
        return False
