"""PURE: the frames that wait for one peer, in a queue for each source. Sources take turns by their bytes.

Each source has a tag: the number of its bytes that were sent so far. The source whose next frame would end at the
smallest tag is next. A source that begins to send starts at the tag of the one that was served last. This is fair
queueing by virtual finish times: short frames pass between the long frames of other sources, however many sources there
are. In deficit round robin, each of the others could send a long frame first. A source that took more than its share
pays for it even if its queue was empty meanwhile. Once nothing waits, all start anew.

Frames of one source stay in order. For a slow peer, long frames can be cut into fragments (RFC 6455 section 5.4), so
that control frames can pass between them. Other messages cannot, so the source whose message has begun is served until
the message ends.

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
    """See the module's text. ``size`` and ``frames`` count what waits.

    All frames of a slice count until the last of them is taken.
    """

    __slots__ = ("_flows", "_many", "_next", "_open", "_pushed", "_start", "emptied", "frames", "size")

    def __init__(self) -> None:
        self.size = self.frames = 0
        self.emptied: list[Hashable] = []
        """The sources whose last bytes `take` has taken. The caller empties it."""
        self._flows: dict[Hashable, _Flow] = {}
        self._next: list[tuple[int, int, _Flow]] = []
        """A heap of: where the next frame would end, a number that breaks ties, and the source's queue."""
        self._many = _MANY
        self._pushed = 0
        self._start = 0
        """The largest tag at which a source was served."""
        self._open: _Flow | None = None
        """The source whose message has begun."""

    def waiting(self, source: Hashable) -> int:
        """Return how many bytes of one source wait."""
        flow = self._flows.get(source)
        return 0 if flow is None else flow.size

    def put(self, source: Hashable, slices: Sequence[Encoded]) -> None:
        """Add whole frames, in order, behind those of the same source."""
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
        """Take what is to be sent next; nothing if nothing waits.

        These are whole slices as they were put, up to the one that reaches ``most`` bytes. With ``cut`` they are pieces
        of about ``most`` bytes together, in which longer frames are cut.
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
        """Forget what waits, and what each source was sent before."""
        self.size = self.frames = self._start = 0
        self._flows.clear()
        self._many = _MANY
        self._next.clear()
        self._open = None

    def _push(self, flow: _Flow) -> None:
        self._pushed += 1
        heappush(self._next, (flow.tag + flow.next_size(), self._pushed, flow))

    def _serve(self, most: int | None) -> bytes:
        """Take a piece of the source whose turn it is, of at most about ``most`` bytes unless that is None."""
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
        """If there are many sources, forget those that new ones would not differ from."""
        if len(self._flows) > self._many:
            kept = {source: flow for source, flow in self._flows.items() if flow.items or flow.tag > self._start}
            self._flows = kept
            self._many = max(_MANY, 2 * len(kept))


class _Flow:
    """What waits of one source. ``left`` is the rest of a frame whose beginning was taken."""

    __slots__ = ("_at", "frames", "items", "left", "size", "source", "tag")

    def __init__(self, source: Hashable) -> None:
        self.source = source
        self.items: deque[Encoded] = deque()
        self.tag = self.size = self.frames = self.left = 0
        self._at = 0  # in the first item

    def put(self, slices: Sequence[Encoded]) -> None:
        """Add slices to the end."""
        self.items += slices
        for data, frames in slices:
            self.size += len(data)
            self.frames += frames

    def next_size(self) -> int:
        """Return about the size of the next frame, since the frames of one slice are similar."""
        data, frames = self.items[0]
        return (len(data) - self._at) // frames

    def rest(self) -> bytes:
        """Take the first item, or the rest of it."""
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
        """Take at most ``most`` bytes: whole frames, or a fragment of a longer one with its own header."""
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
        """Take the next fragment of the frame that has begun. The last one may be a little longer."""
        size = self.left if self.left <= most + most // 4 else most
        self.left -= size
        at = self._at
        data = self.items[0][0]
        self._pass(size)
        return frame_head(first if self.left else first | FIN, size) + data[at : at + size]

    def _end_of_frames(self, data: bytes, most: int) -> int:
        """Return where the last frame ends that ends before ``most``."""
        end = self._at
        while True:
            header, size = _extent(data, end)
            if end + header + size > most:
                return end
            end += header + size

    def _pass(self, size: int) -> None:
        """Advance in the first item, and remove it at its end."""
        self.size -= size
        self._at += size
        if self._at == len(self.items[0][0]):
            _, frames = self.items.popleft()
            self.frames -= frames
            self._at = 0


def _extent(data: bytes, at: int) -> tuple[int, int]:
    """Return the sizes of an unmasked frame's header and payload."""
    size = data[at + 1]
    if size < _SHORT:
        return 2, size
    if size < _LONG:
        return 4, int.from_bytes(data[at + 2 : at + 4], "big")
    return 10, int.from_bytes(data[at + 2 : at + 10], "big")
