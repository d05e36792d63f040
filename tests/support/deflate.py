"""The client's side of permessage-deflate, by an independent implementation."""

from __future__ import annotations

from itertools import pairwise

from tests.support.frames import BINARY, CONTINUATION, TEXT, frame
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from pyryrelay.websocket.frames.negotiation import Compression


class Deflating:
    """A client that has agreed to compress messages: it writes frames, and reads those of the server."""

    def __init__(self, agreed: Compression) -> None:
        self._extension = PerMessageDeflate(
            remote_no_context_takeover=not agreed.server_context,
            local_no_context_takeover=not agreed.client_context,
            remote_max_window_bits=agreed.server_bits,
            local_max_window_bits=agreed.client_bits,
        )

    def compress(self, payload: bytes, opcode: int = TEXT) -> bytes:
        """Return the payload of a compressed message."""
        return bytes(self._extension.encode(Frame(Opcode(opcode), payload)).data)

    def message(self, payload: bytes, opcode: int = TEXT) -> bytes:
        """Return a compressed message in one frame."""
        return frame(self.compress(payload, opcode), opcode, rsv=4)

    def read(self, data: bytes) -> list[tuple[bytes, bool]]:
        """Return what whole frames of the server hold, and whether each was compressed."""
        reader, found = StreamReader(), []
        reader.feed_data(data)
        while reader.buffer:
            is_deflated = reader.buffer[0] & 0x40 != 0
            parser = Frame.parse(reader.read_exact, mask=False, extensions=[self._extension])
            try:
                next(parser)
            except StopIteration as done:
                found.append((bytes(done.value.data), is_deflated))
            else:
                raise AssertionError("a frame is not whole")
        return found


def deflated_fragments(compressed: bytes, cuts: list[int], opcode: int = BINARY) -> list[bytes]:
    """Return the frames of one compressed message that is cut at these places."""
    ends = [0, *sorted(min(cut, len(compressed)) for cut in cuts), len(compressed)]
    last = len(ends) - 2
    return [
        frame(compressed[a:b], CONTINUATION if at else opcode, fin=at == last, rsv=0 if at else 4)
        for at, (a, b) in enumerate(pairwise(ends))
    ]
