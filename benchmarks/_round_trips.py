"""A load generator for round trips from a phone through the relay to a binary and back, one per pair at a time.

It runs both ends of all pairs in this process on one epoll loop, sends prepared frames, and counts received frames by
their size. The first round trip of each pair is compared byte by byte. Times are seconds, sizes bytes. Failures raise
`TrafficError`.
"""

from __future__ import annotations

import select
import socket
import time
from array import array

import _frames
import _traffic
from _attempts import reset
from _clients import RECEIVE_BUFFER_BYTES, TIMEOUT_S, Pairing, pair_many, receive, settle
from _frames import TrafficError
from _rig import Server
from _traffic import Load

_buffer = bytearray(RECEIVE_BUFFER_BYTES)


class _End:
    """One end of a pair: the size of the frame that it expects, and the frame that it sends then."""

    __slots__ = ("began_s", "expected_bytes", "frame", "got_bytes", "is_phone", "sock")

    def __init__(self, sock: socket.socket, frame: bytes, expected_bytes: int, *, is_phone: bool) -> None:
        self.sock = sock
        self.frame = frame
        self.expected_bytes = expected_bytes
        self.got_bytes = 0
        self.is_phone = is_phone
        self.began_s = 0.0


class RoundTrips:
    """Pairs of one phone and one binary, each with one round trip at a time; a context manager.

    Binaries come to ``binaries_at``, if that is given.
    """

    def __init__(self, server: Server, pairs: int, payload_bytes: int, *, binaries_at: Server | None = None) -> None:
        self._server = server
        self._poll = select.epoll()
        self._ends: dict[int, _End] = {}
        self._socks: list[socket.socket] = []
        self._latencies_s = array("d")
        try:
            for pairing in pair_many(server, pairs, binaries_at=binaries_at):
                self._socks += pairing.socks
                self._add(pairing, payload_bytes)
        except BaseException:
            reset(self._socks)
            raise

    def _add(self, pairing: Pairing, payload_bytes: int) -> None:
        """Add a pair, check its first round trip, and record the sizes of its frames."""
        there, back = (_frames.payload(0, n, payload_bytes) for n in range(2))
        envelope = _frames.envelope(pairing.conn_ids[0], back)
        sizes = [_frames.frame_bytes(len(data), from_client=False) for data in (envelope, back)]
        ends = [
            _End(pairing.binary, _frames.masked(envelope), sizes[0], is_phone=False),
            _End(pairing.phones[0], _frames.masked(there), sizes[1], is_phone=True),
        ]
        for end in reversed(ends):
            end.sock.sendall(end.frame)
        if _frames.open_envelope(receive(pairing.binary)).frame != there or receive(pairing.phones[0]) != back:
            raise TrafficError("a frame was changed")
        for end in ends:
            end.sock.setblocking(False)
            self._ends[end.sock.fileno()] = end
            self._poll.register(end.sock.fileno(), select.EPOLLIN)

    def run(self, for_s: float) -> Load:
        """Make round trips for some time. CPU time is measured to the last frame, wall time to the end."""
        self._start()
        self._exchange(_traffic.WARM_UP_S)
        self._finish()
        server_s, load_s, wall_s = self._server.cpu_s(), time.process_time(), time.perf_counter()
        self._latencies_s = array("d")
        self._start()
        self._exchange(for_s)
        wall_s, load_s = time.perf_counter() - wall_s, time.process_time() - load_s
        latencies_s = sorted(self._latencies_s)
        self._finish()
        trips = len(latencies_s) + len(self._ends) // 2
        return Load(2 * trips, self._server.cpu_s() - server_s, load_s, wall_s, latencies_s)

    def _start(self) -> None:
        for end in self._ends.values():
            if end.is_phone:
                end.began_s = time.perf_counter()
                end.sock.send(end.frame)

    def _exchange(self, for_s: float) -> None:
        clock, poll, ends, note = time.perf_counter, self._poll.poll, self._ends, self._latencies_s.append
        end_s = clock() + for_s
        now_s = 0.0
        while now_s < end_s:
            for fd, _ in poll(0.1):
                end = ends[fd]
                end.got_bytes += end.sock.recv_into(_buffer)
                if end.got_bytes == end.expected_bytes:
                    end.got_bytes = 0
                    if end.is_phone:
                        now_s = clock()
                        note(now_s - end.began_s)
                        end.began_s = now_s
                    end.sock.send(end.frame)
                elif end.got_bytes > end.expected_bytes:
                    raise TrafficError("more than one frame came back")
            now_s = clock()

    def _finish(self) -> None:
        """Wait for all frames in flight, without starting new round trips."""
        missing = sum(end.is_phone for end in self._ends.values())
        end_s = time.perf_counter() + TIMEOUT_S
        while missing:
            for fd, _ in self._poll.poll(0.1):
                end = self._ends[fd]
                end.got_bytes += end.sock.recv_into(_buffer)
                if end.got_bytes == end.expected_bytes:
                    end.got_bytes = 0
                    missing -= end.is_phone
                    if not end.is_phone:
                        end.sock.send(end.frame)
            if time.perf_counter() > end_s:
                raise TrafficError(f"{missing} frames did not come back")

    def __enter__(self) -> RoundTrips:
        return self

    def __exit__(self, *_: object) -> None:
        self._poll.close()
        reset(self._socks)
        settle(self._server)
