"""PURE: the frames that wait for one peer: a queue for each source, served in turns by their bytes.

Each source has a tag, the bytes that it was given so far, and the one whose next frame would end at the smallest tag
is next. A source that begins to send starts where the others are (at the tag of the one that was served last). This is
fair queueing by virtual finish times: short frames pass between the long ones of others, however many there are. In
deficit round robin, each of the others may send a long frame first. A source that took more than its share pays for it
even if its queue was empty meanwhile; once nothing waits, all start anew.

Frames of one source stay in order. For a slow peer long frames can be cut into fragments (RFC 6455 section 5.4), so
that control frames pass between two of them; other messages cannot, so the source whose message has begun goes on until
it ends.

Sizes are bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from heapq import heappop, heappush
from typing import Final

from pyryrelay.websocket.frames.header import FIN
from pyryrelay.websocket.frames.writer import Encoded, frame_head

__all__ = ["SendQueue"]

_MANY: Final = 64
_SHORT: Final = 126
_LONG: Final = 127


class SendQueue:
    """See the module's docstring. ``size`` and ``frames`` count what waits.

    A slice counts with all its frames until the last of them is taken.
    """

    __slots__ = ("_flows", "_many", "_next", "_open", "_pushed", "_start", "emptied", "frames", "size")

    def __init__(self) -> None:
        self.size = self.frames = 0
        self.emptied: list[Hashable] = []
        """The sources of which `take` took the last bytes; whoever wants to know empties it."""
        self._flows: dict[Hashable, _Flow] = {}
        self._next: list[tuple[int, int, _Flow]] = []
        """A heap: where the next frame would end, a number that tells equals apart, and the source's queue."""
        self._many = _MANY
        self._pushed = 0
        self._start = 0
        """The largest tag with which a source was served."""
        self._open: _Flow | None = None
        """Whose message has begun."""

    def waiting(self, source: Hashable) -> int:
        """The bytes of one source that wait."""
        flow = self._flows.get(source)
        return 0 if flow is None else flow.size

    def put(self, source: Hashable, slices: Sequence[Encoded]) -> None:
        """Whole frames wait, in order, behind those of the same source."""
        if not slices:
            return
        flow = self._flows.get(source)
        if flow is None:
            flow = self._flows[source] = _Flow(source)
        is_idle = not flow.items
        size, frames = flow.size, flow.frames
        flow.put(slices)
        self.size += flow.size - size
        self.frames += flow.frames - frames
        if is_idle:
            flow.tag = max(flow.tag, self._start)
            self._push(flow)

    def take(self, most: int, *, cut: bool) -> list[bytes]:
        """What is to be sent next, or nothing where nothing waits.

        Whole slices as they were put, up to the one that takes it to ``most``; or, with ``cut``, pieces of about
        ``most`` bytes, in which longer frames are cut.
        """
        pieces: list[bytes] = []
        taken = 0
        enough = most // 2 if cut else most
        while self.size and (not pieces or taken < enough):
            piece = self._serve(most if cut else None)
            pieces.append(piece)
            taken += len(piece)
        if not self.size:
            self.clear()
        return pieces

    def clear(self) -> None:
        """Forget what waits, and what anybody has had before."""
        self.size = self.frames = self._start = 0
        self._flows.clear()
        self._many = _MANY
        self._next.clear()
        self._open = None

    def _push(self, flow: _Flow) -> None:
        self._pushed += 1
        heappush(self._next, (flow.tag + flow.next_size(), self._pushed, flow))

    def _serve(self, most: int | None) -> bytes:
        """A piece of the source whose turn it is, of at most about ``most`` bytes if there is such a limit."""
        flow = self._open
        if flow is None:
            flow = heappop(self._next)[-1]
            self._start = max(self._start, flow.tag)
        size, frames = flow.size, flow.frames
        piece = flow.rest() if most is None else flow.cut(most)
        flow.tag += len(piece)
        self.size += flow.size - size
        self.frames += flow.frames - frames
        self._open = flow if flow.left else None
        if not flow.items:
            self.emptied.append(flow.source)
            self._forget_idle()
        elif self._open is None:
            self._push(flow)
        return piece

    def _forget_idle(self) -> None:
        """Where there are many sources, forget those that took no more than they would as new ones."""
        if len(self._flows) > self._many:
            kept = {source: flow for source, flow in self._flows.items() if flow.items or flow.tag > self._start}
            self._flows = kept
            self._many = max(_MANY, 2 * len(kept))


class _Flow:
    """What waits of one source. ``left`` is how much there is yet of a frame of which the beginning was taken."""

    __slots__ = ("_at", "frames", "items", "left", "size", "source", "tag")

    def __init__(self, source: Hashable) -> None:
        self.source = source
        self.items: deque[Encoded] = deque()
        self.tag = self.size = self.frames = self.left = 0
        self._at = 0  # in the first item

    def put(self, slices: Sequence[Encoded]) -> None:
        """Add to the end."""
        self.items += slices
        for data, frames in slices:
            self.size += len(data)
            self.frames += frames

    def next_size(self) -> int:
        """About the size of the next frame: those of one slice are much alike."""
        data, frames = self.items[0]
        return (len(data) - self._at) // frames

    def rest(self) -> bytes:
        """The first item, or what is left of it."""
        data, at = self.items[0][0], self._at
        if not at:
            self._pass(len(data))
            return data
        last = self.left
        self.left = 0
        self._pass(len(data) - at)
        ending = frame_head(FIN, last) + data[at : at + last] if last else b""
        return ending + data[at + last :]

    def cut(self, most: int) -> bytes:
        """At most ``most`` bytes: whole frames, or a fragment of a longer one with a header of its own."""
        if self.left:
            return self._fragment(0, most)
        data, at = self.items[0][0], self._at
        if len(data) - at <= most:
            return self.rest()
        end = self._end_of_frames(data, at + most)
        if end > at:
            self._pass(end - at)
            return data[at:end]
        header, self.left = _extent(data, at)
        self._pass(header)
        return self._fragment(data[at] & ~FIN, most)

    def _fragment(self, first: int, most: int) -> bytes:
        """The next fragment of the frame that has begun; the last one may be a little longer."""
        size = self.left if self.left <= most + most // 4 else most
        self.left -= size
        at = self._at
        data = self.items[0][0]
        self._pass(size)
        return frame_head(first if self.left else first | FIN, size) + data[at : at + size]

    def _end_of_frames(self, data: bytes, most: int) -> int:
        """Where the last frame ends that ends before ``most``."""
        end = self._at
        while True:
            header, size = _extent(data, end)
            if end + header + size > most:
                return end
            end += header + size

    def _pass(self, size: int) -> None:
        """Go on in the first item, and leave it at its end."""
        self.size -= size
        self._at += size
        if self._at == len(self.items[0][0]):
            _, frames = self.items.popleft()
            self.frames -= frames
            self._at = 0


def _extent(data: bytes, at: int) -> tuple[int, int]:
    """The size of an unmasked frame's header and that of its payload."""
    size = data[at + 1]
    if size < _SHORT:
        return 2, size
    if size < _LONG:
        return 4, int.from_bytes(data[at + 2 : at + 4], "big")
    return 10, int.from_bytes(data[at + 2 : at + 10], "big")
