"""One WebSocket connection of a probe, by the client of `websockets` without its I/O, on a blocking socket.

What the relay may send is bounded: the head, the size of messages, and how many of them are kept. Times are seconds.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from pyryrelay.cli.probe import advice
from pyryrelay.cli.probe.sockets import Deadline
from pyryrelay.protocol_options import ProbeError
from pyryrelay.text import printable, quoted

__all__ = ["MAX_HEAD_BYTES", "MAX_MESSAGE_BYTES", "Peer", "head_of", "open_peer"]

MAX_HEAD_BYTES: Final = 32_768
MAX_MESSAGE_BYTES: Final = 1024 * 1024
MAX_WAITING: Final = 1_000
MAX_WAITING_CHARS: Final = 4 * MAX_MESSAGE_BYTES
"""Messages that are kept while something else is waited for, and how long they may be together."""
MAX_PARTS: Final = 1_000
"""Fragments of a message, which may be empty."""
_READ_BYTES: Final = 65_536


class _LateError(ProbeError):
    """Something did not arrive in time."""


@dataclass(frozen=True, slots=True)
class _Head:
    """The head of an HTTP answer, and what came behind it."""

    status: int
    fields: Mapping[str, str]
    rest: bytes


def head_of(sock: socket.socket, deadline: Deadline) -> tuple[_Head, bytes]:
    """Read the head of an answer, and return it with all bytes that were read. Raises `ProbeError`."""
    data = b""
    while b"\r\n\r\n" not in data:
        try:
            deadline.apply(sock)
            more = sock.recv(_READ_BYTES)
        except TimeoutError:
            raise advice.no_answer("the answer to the request", deadline.seconds) from None
        except OSError:
            more = b""
        data += more
        if not more or (not b"HTTP/1.".startswith(data[:7]) and not data.startswith(b"HTTP/1.")):
            raise advice.not_http(data)
        if b"\r\n\r\n" not in data[:MAX_HEAD_BYTES] and len(data) > MAX_HEAD_BYTES:
            raise ProbeError(f"the head of the answer is longer than {MAX_HEAD_BYTES} bytes", "check the URL")
    head, _, rest = data.partition(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    status = line.split(" ")[1:2]
    if not status or not (status[0].isascii() and status[0].isdigit() and len(status[0]) == 3):
        raise advice.not_http(data)
    fields = {name.strip().lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
    return _Head(int(status[0]), fields, rest), data


def open_peer(
    sock: socket.socket, url: str, headers: Mapping[str, str], answers: Mapping[int, str], timeout_s: float
) -> Peer:
    """Ask for an upgrade, and return the open connection. Raises `ProbeError`."""
    protocol = ClientProtocol(parse_uri(url), max_size=MAX_MESSAGE_BYTES)
    request = protocol.connect()
    for name, value in headers.items():
        request.headers[name] = value
    protocol.send_request(request)
    deadline = Deadline(timeout_s)
    with contextlib.suppress(OSError):
        # Who is refused early gets the answer, although the request could not be sent.
        deadline.apply(sock)
        sock.sendall(b"".join(protocol.data_to_send()))
    head, data = head_of(sock, deadline)
    if head.status != 101:
        raise advice.refused(head.status, head.fields, answers)
    protocol.receive_data(data)
    if protocol.handshake_exc is not None:
        raise _broken(protocol.handshake_exc)
    peer = Peer(sock, protocol, answers, timeout_s)
    peer.take_events()
    return peer


def _broken(error: Exception) -> ProbeError:
    cause = error.__cause__ or error
    problem = f"the answer is no upgrade to WebSocket: {printable(str(cause))}"
    fix = advice.refused(426, {}, {}).fix if isinstance(error, InvalidHandshake) else "check the URL"
    return ProbeError(problem, fix)


class Peer:
    """An open connection; see `pyryrelay.protocol_options.ProbePeer`."""

    def __init__(
        self, sock: socket.socket, protocol: ClientProtocol, answers: Mapping[int, str], timeout_s: float
    ) -> None:
        self._socket = sock
        self._protocol = protocol
        self._answers = answers
        self._timeout_s = timeout_s
        self._messages: deque[str] = deque()
        self._parts: list[bytes] = []
        self._waiting_chars = 0
        self._awaited_pong: bytes | None = None

    def send(self, text: str) -> None:
        """See `pyryrelay.protocol_options.ProbePeer`."""
        self._check_open()
        self._protocol.send_text(text.encode())
        self._flush(Deadline(self._timeout_s))

    def receive(self) -> str:
        """See `pyryrelay.protocol_options.ProbePeer`."""
        self._wait(lambda: bool(self._messages), "the message")
        return self._next()

    def receive_within(self, seconds: float) -> str | None:
        """See `pyryrelay.protocol_options.ProbePeer`."""
        deadline = Deadline(seconds)
        while not self._messages and deadline.left_s:
            self._check_open()
            try:
                if not self._read(deadline, "the message") and not self._messages:
                    raise self._ended()
            except _LateError:
                break
        return self._next() if self._messages else None

    def ping(self) -> None:
        """See `pyryrelay.protocol_options.ProbePeer`."""
        self._check_open()
        self._awaited_pong = os.urandom(8)
        self._protocol.send_ping(self._awaited_pong)
        self._flush(Deadline(self._timeout_s))
        self._wait(lambda: self._awaited_pong is None, "the answer to a ping")

    def close(self) -> str:
        """See `pyryrelay.protocol_options.ProbePeer`."""
        with contextlib.closing(self._socket):
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(1000, "")
                self._flush(Deadline(self._timeout_s))
            deadline = Deadline(self._timeout_s)
            while self._protocol.close_rcvd is None:
                if not self._read(deadline, "the answer to the close"):
                    raise advice.closed(None, "", self._answers)
            received = self._protocol.close_rcvd
            return f"{received.code} {quoted(received.reason)}" if received.reason else str(received.code)

    def abort(self) -> None:
        """Close the socket at once."""
        self._socket.close()

    def take_events(self) -> None:
        """Keep what the protocol has received."""
        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                continue
            if event.opcode is Opcode.PONG:
                if event.data == self._awaited_pong:
                    self._awaited_pong = None
            elif event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._take_part(event)

    def _take_part(self, frame: Frame) -> None:
        """Keep a message, or a fragment of one."""
        self._parts.append(bytes(frame.data))
        if len(self._parts) > MAX_PARTS:
            raise ProbeError(f"the relay sends a message in more than {MAX_PARTS} fragments", "check the URL")
        if not frame.fin:
            return
        text = b"".join(self._parts).decode("utf-8", "replace")
        self._parts.clear()
        self._messages.append(text)
        self._waiting_chars += len(text)
        if len(self._messages) > MAX_WAITING or self._waiting_chars > MAX_WAITING_CHARS:
            raise ProbeError("the relay sends messages that nobody asked for", "check the URL")

    def _next(self) -> str:
        text = self._messages.popleft()
        self._waiting_chars -= len(text)
        return text

    def _wait(self, is_there: Callable[[], bool], what: str) -> None:
        """Read until something is there. Raises `ProbeError` at the deadline, and if the connection ends."""
        deadline = Deadline(self._timeout_s)
        while not is_there():
            self._check_open()
            if not self._read(deadline, what) and not is_there():
                raise self._ended()

    def _read(self, deadline: Deadline, what: str) -> bool:
        """Read once, and answer what has to be; return whether there may be more."""
        try:
            deadline.apply(self._socket)
            data = self._socket.recv(_READ_BYTES)
        except TimeoutError:
            late = advice.no_answer(what, deadline.seconds)
            raise _LateError(late.problem, late.fix) from None
        except OSError:
            data = b""
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        self.take_events()
        self._flush(deadline)
        return bool(data)

    def _flush(self, deadline: Deadline) -> None:
        data = b"".join(self._protocol.data_to_send())
        # A connection that is lost is noticed, and explained, when it is read from.
        with contextlib.suppress(OSError):
            if data:
                deadline.apply(self._socket)
                self._socket.sendall(data)

    def _check_open(self) -> None:
        """Raise `ProbeError` if the relay has closed the connection."""
        if self._protocol.close_rcvd is not None or self._protocol.state is not State.OPEN:
            raise self._ended()

    def _ended(self) -> ProbeError:
        received = self._protocol.close_rcvd
        if received is not None:
            return advice.closed(received.code, received.reason, self._answers)
        if (sent := self._protocol.close_sent) is not None:
            problem = f"the relay breaks the WebSocket protocol: {printable(sent.reason) or sent.code}"
            return ProbeError(problem, "look for a proxy between that changes frames")
        return advice.closed(None, "", self._answers)
