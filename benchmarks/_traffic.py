"""A load generator that streams frames through a relay. Its results, and those of `_round_trips`, are a `Load`.

It runs in this process on one epoll loop over non-blocking sockets. It sends prepared frames, counts received frames by
their size, and inspects frames only outside the timed part. Times are seconds, sizes bytes. Failures raise
`TrafficError`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import _frames
from _attempts import reset
from _clients import RECEIVE_BUFFER_BYTES, TIMEOUT_S, Pairing, pair, settle
from _frames import TrafficError
from _rig import Row, Server, arguments, publish

PHONES = 8
WINDOW_BYTES = 131072
"""Bytes in flight per phone. Of large frames there are two: a phone's outbox holds 16, and 4 MiB."""
SEND_BYTES = 65536
CHUNK_BYTES = 1 << 16
"""Size of the prepared frames of a connection, which are sent repeatedly; at least two frames."""
WARM_UP_S = 0.2
_buffer = bytearray(RECEIVE_BUFFER_BYTES)


@dataclass(frozen=True)
class Load:
    """The result of streaming or of round trips for some time."""

    frames: float
    """Frames that were delivered; each round trip is two."""
    server_s: float
    """CPU time of the server."""
    load_s: float
    """CPU time of the load generator, which is the bottleneck if this is close to ``wall_s``."""
    wall_s: float
    latencies_s: Sequence[float] = ()
    """Durations of round trips, sorted."""


class _Sender:
    """A connection that repeats a chunk of whole frames of one size endlessly."""

    def __init__(self, sock: socket.socket, frames: Sequence[bytes]) -> None:
        self._sock = sock
        self._chunk = memoryview(b"".join(frames))
        self._frame_bytes = len(frames[0])
        if len(self._chunk) != self._frame_bytes * len(frames):
            raise ValueError("frames of several sizes")
        self._offset = 0

    @property
    def begun_bytes(self) -> int:
        """The missing bytes of a frame that was sent in part."""
        return -self._offset % self._frame_bytes

    def send(self, at_most_bytes: int) -> int:
        """Send as much as the kernel accepts; return the number of bytes."""
        try:
            sent_bytes = self._sock.send(self._chunk[self._offset : self._offset + at_most_bytes])
        except BlockingIOError:
            return 0
        self._offset = (self._offset + sent_bytes) % len(self._chunk)
        return sent_bytes


class _Receiver:
    """A connection that counts bytes, and records them on demand."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.received_bytes = 0
        self.kept_from_bytes: int | None = None
        self.kept = bytearray()

    def receive(self) -> None:
        """Read once."""
        count = self._sock.recv_into(_buffer)
        if not count:
            raise TrafficError("the server closed a connection")
        if self.kept_from_bytes is not None:
            self.kept += _buffer[:count]
        self.received_bytes += count

    def keep(self) -> None:
        """Record all bytes from now on."""
        self.kept_from_bytes = self.received_bytes

    def payloads(self, frame_bytes: int) -> list[bytes]:
        """Return the payloads of the whole frames that were recorded."""
        skipped_bytes = -(self.kept_from_bytes or 0) % frame_bytes
        stream = bytes(self.kept[skipped_bytes:])
        return [data for _, data in _frames.frames(stream[: len(stream) // frame_bytes * frame_bytes])]


class _Pump:
    """Keep up to a window of frames in flight from senders to receivers."""

    def __init__(
        self,
        senders: Sequence[_Sender],
        receivers: Sequence[_Receiver],
        socks: Iterable[socket.socket],
        sizes: tuple[int, int],
        window_frames: int,
    ) -> None:
        self._senders = itertools.cycle(senders)
        self._all_senders = senders
        self._receivers = receivers
        self.out_bytes, self.in_bytes = sizes
        self._window_bytes = window_frames * self.out_bytes
        self._least_bytes = min(SEND_BYTES, self._window_bytes // 4)
        self._sent_bytes = 0
        self._poll = select.epoll()
        self._by_fd = {}
        for sock, receiver in zip(socks, receivers, strict=True):
            self._poll.register(sock.fileno(), select.EPOLLIN)
            self._by_fd[sock.fileno()] = receiver

    @property
    def arrived(self) -> float:
        """The number of frames that were delivered so far."""
        return sum(receiver.received_bytes for receiver in self._receivers) / self.in_bytes

    def fileno(self) -> int:
        """Return a descriptor that is readable when something has arrived."""
        return self._poll.fileno()

    def run(self, for_s: float) -> None:
        """Stream for some time."""
        end_s = time.perf_counter() + for_s
        while time.perf_counter() < end_s:
            self.fill()
            self.drain(0.005)

    def fill(self) -> None:
        """Send as much as the window has room for."""
        refused = 0
        while refused < len(self._all_senders):
            in_flight_bytes = self._sent_bytes - self.arrived * self.out_bytes
            room_bytes = int(self._window_bytes - in_flight_bytes)
            if room_bytes < self._least_bytes:
                return
            sent_bytes = next(self._senders).send(min(room_bytes, SEND_BYTES))
            self._sent_bytes += sent_bytes
            refused = 0 if sent_bytes else refused + 1

    def drain(self, timeout_s: float) -> None:
        """Receive what has arrived, or arrives within that time."""
        for fd, _ in self._poll.poll(timeout_s):
            self._by_fd[fd].receive()

    def finish(self) -> None:
        """Complete the frames that were sent in part, and wait until all frames have arrived."""
        end_s = time.perf_counter() + TIMEOUT_S
        while time.perf_counter() < end_s:
            for sender in self._all_senders:
                if sender.begun_bytes:
                    self._sent_bytes += sender.send(sender.begun_bytes)
            begun = any(sender.begun_bytes for sender in self._all_senders)
            if not begun and self.arrived * self.out_bytes == self._sent_bytes:
                return
            self.drain(0.005)
        raise TrafficError(f"{self._sent_bytes / self.out_bytes - self.arrived:g} frames did not arrive")


def stream(
    server: Server, payload_bytes: int, for_s: float, *, up: bool, bare: bool = False, binary_at: Server | None = None
) -> Load:
    """Stream from eight phones to their binary (``up``), or from it to them, as fast as the server can.

    A ``bare`` server forwards bytes unchanged: they are counted and not inspected. The binary comes to ``binary_at``,
    if that is given.
    """
    pairing = pair(server, PHONES, bare=bare, binary_at=binary_at)
    try:
        sent = _payloads(payload_bytes)
        pump, receivers = (_up if up else _down)(pairing, sent, bare)
        for sock in pairing.socks:
            sock.setblocking(False)
        flow = _timed(server, pump, for_s)
        _check(pairing, pump, receivers, None if bare else sent, up=up)
    finally:
        reset(pairing.socks)
    settle(server)
    return flow


def stream_to_each(server: Server, pairings: Sequence[Pairing], payload_bytes: int, for_s: float) -> Load:
    """Stream from the phones of each pairing to its binary, all at once, and measure while all of them stream.

    Each pairing has a window of its own, so none waits for the process of another one.
    """
    sent = _payloads(payload_bytes)
    flows = [(pairing, *_up(pairing, sent, False)) for pairing in pairings]
    for sock in (sock for pairing in pairings for sock in pairing.socks):
        sock.setblocking(False)
    pumps = [pump for _, pump, _ in flows]
    _run_all(pumps, WARM_UP_S)
    server_s, arrived = server.cpu_s(), sum(pump.arrived for pump in pumps)
    load_s, wall_s = time.process_time(), time.perf_counter()
    _run_all(pumps, for_s)
    wall_s, load_s = time.perf_counter() - wall_s, time.process_time() - load_s
    load = Load(sum(pump.arrived for pump in pumps) - arrived, server.cpu_s() - server_s, load_s, wall_s)
    for pump in pumps:
        pump.finish()
    for pairing, pump, receivers in flows:
        _check(pairing, pump, receivers, sent, up=True)
    return load


def _run_all(pumps: Sequence[_Pump], for_s: float) -> None:
    with select.epoll() as poll:
        by_fd = {pump.fileno(): pump for pump in pumps}
        for fd in by_fd:
            poll.register(fd, select.EPOLLIN)
        end_s = time.perf_counter() + for_s
        while time.perf_counter() < end_s:
            for pump in pumps:
                pump.fill()
            for fd, _ in poll.poll(0.005):
                by_fd[fd].drain(0)


@functools.cache
def _payloads(payload_bytes: int) -> list[list[bytes]]:
    """Return the payloads that each phone sends or receives."""
    count = max(2, CHUNK_BYTES // payload_bytes)
    return [[_frames.payload(phone, number, payload_bytes) for number in range(count)] for phone in range(PHONES)]


@functools.cache
def _chunks(payload_bytes: int) -> list[list[bytes]]:
    """Return the frames of those payloads."""
    return [[_frames.masked(data) for data in payloads] for payloads in _payloads(payload_bytes)]


def _window_frames(payload_bytes: int) -> int:
    return PHONES * max(2, WINDOW_BYTES // payload_bytes)


def _up(pairing: Pairing, sent: Sequence[Sequence[bytes]], bare: bool) -> tuple[_Pump, list[_Receiver]]:
    payload_bytes = len(sent[0][0])
    senders = [_Sender(phone, chunk) for phone, chunk in zip(pairing.phones, _chunks(payload_bytes), strict=True)]
    out_bytes = _frames.frame_bytes(payload_bytes, from_client=True)
    envelope_bytes = len(_frames.envelope(pairing.conn_ids[0], sent[0][0]))
    in_bytes = out_bytes if bare else _frames.frame_bytes(envelope_bytes, from_client=False)
    receivers = [_Receiver(pairing.binary)]
    return _Pump(senders, receivers, [pairing.binary], (out_bytes, in_bytes), _window_frames(payload_bytes)), receivers


def _down(pairing: Pairing, sent: Sequence[Sequence[bytes]], bare: bool) -> tuple[_Pump, list[_Receiver]]:
    payload_bytes = len(sent[0][0])
    frames = [
        _frames.masked(_frames.envelope(conn_id, data))
        for row in zip(*sent, strict=True)
        for conn_id, data in zip(pairing.conn_ids, row, strict=True)
    ]
    in_bytes = len(frames[0]) if bare else _frames.frame_bytes(payload_bytes, from_client=False)
    receivers = [_Receiver(phone) for phone in pairing.phones]
    senders, sizes = [_Sender(pairing.binary, frames)], (len(frames[0]), in_bytes)
    return _Pump(senders, receivers, pairing.phones, sizes, _window_frames(payload_bytes)), receivers


def _timed(server: Server, pump: _Pump, for_s: float) -> Load:
    """Measure from the first frame to the last, so that frames in flight at either end do not distort the result."""
    pump.run(WARM_UP_S)
    pump.finish()
    server_s, load_s, wall_s, arrived = server.cpu_s(), time.process_time(), time.perf_counter(), pump.arrived
    pump.run(for_s)
    pump.finish()
    wall_s, load_s = time.perf_counter() - wall_s, time.process_time() - load_s
    return Load(pump.arrived - arrived, server.cpu_s() - server_s, load_s, wall_s)


def _check(
    pairing: Pairing,
    pump: _Pump,
    receivers: Sequence[_Receiver],
    sent: Sequence[Sequence[bytes]] | None,
    *,
    up: bool,
) -> None:
    """Stream a little more, and compare what arrives with what was ``sent``, if that is given."""
    for receiver in receivers:
        receiver.keep()
    pump.run(0.02)
    pump.finish()
    if sent is not None:
        _verify(pairing, [receiver.payloads(pump.in_bytes) for receiver in receivers], sent, up=up)


def _verify(
    pairing: Pairing, received: Sequence[Sequence[bytes]], sent: Sequence[Sequence[bytes]], *, up: bool
) -> None:
    if up:
        envelopes = [_frames.open_envelope(data) for data in received[0]]
        received = [
            [envelope.frame for envelope in envelopes if envelope.conn_id == conn_id] for conn_id in pairing.conn_ids
        ]
    for number, payloads in enumerate(received):
        if _frames.check_order(payloads, sent) - {number}:
            raise TrafficError("a frame went to another phone, or came from it")
    if not any(received):
        raise TrafficError("nothing arrived that could be verified")


def run(description: str, bench: Callable[[argparse.Namespace], Sequence[Row]]) -> None:
    """Run a benchmark of traffic: parse its command line, measure, and print."""
    global WARM_UP_S
    options = arguments(description)
    if options.quick:
        WARM_UP_S = 0.05
    publish(bench(options), options)
