"""Compressed WebSocket messages: any input yields messages and a `Stop`, independent of how it is split.

Input: one byte for the size of the pieces, then what a connection sends after its upgrade. The lowest bit of the first
byte says whether the client keeps its context.
"""

from __future__ import annotations

from harness import ensure, instrumented, main

with instrumented():
    from pyryrelay.protocol import Message
    from pyryrelay.websocket.frames.deflated_reader import DeflatedFrameReader
    from pyryrelay.websocket.frames.negotiation import Compression
    from pyryrelay.websocket.frames.reader import CloseFrame, Stop

MAX_BYTES = 300

Outcome = tuple[bool, list[Message], list[bytes]]


def outcome(data: bytes, piece_bytes: int, keeps_context: bool) -> Outcome:
    """Feed pieces of a size; return everything that the reader finds up to the first fault or the close frame."""
    reader = DeflatedFrameReader(MAX_BYTES, 4, Compression("", False, keeps_context, 15, 15))
    for start in range(0, len(data), piece_bytes):
        piece = data[start : start + piece_bytes]
        while (stop := reader.read(piece)) is not None or reader.is_full:
            piece = b""
            if stop is not None:
                return _is_fault(stop), reader.messages, reader.pings
        ensure(len(reader._inflated) <= MAX_BYTES, "at most one message of the largest size is buffered")
    return False, reader.messages, reader.pings


def _is_fault(stop: Stop) -> bool:
    return not isinstance(stop, CloseFrame)


def check(data: bytes) -> None:
    """Feed the input as a whole, in pieces, and byte by byte."""
    sent, first = data[1:], data[0] if data else 0
    whole = outcome(sent, len(sent) or 1, first & 1 == 1)
    ensure(outcome(sent, first or 1, first & 1 == 1) == whole, "the size of the pieces does not matter")
    ensure(outcome(sent, 1, first & 1 == 1) == whole, "single bytes give the same result")
    _, messages, _ = whole
    ensure(all(len(payload) <= MAX_BYTES for payload, _ in messages), "messages are within the limit")
    for payload, is_binary in messages:
        if not is_binary:
            payload.decode()  # raises an error if text is not UTF-8


if __name__ == "__main__":
    main(check)
