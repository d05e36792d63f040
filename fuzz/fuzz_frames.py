"""WebSocket frames: any input yields messages and a `Stop`, independent of how it is split.

Input: one byte for the size of the pieces, then what a connection sends after its upgrade.
"""

from __future__ import annotations

from harness import ensure, instrumented, main

with instrumented():
    from pyryrelay.protocol import Message
    from pyryrelay.websocket.frames.reader import CloseFrame, FrameReader, Stop

MAX_BYTES = 300
LONGEST_HEADER = 14

Outcome = tuple[list[Stop], list[Message], list[bytes], list[bytes], int]


def outcome(data: bytes, piece_bytes: int) -> Outcome:
    """Feed pieces of a size; return everything that the reader finds up to the peer's close frame."""
    reader = FrameReader(MAX_BYTES, 4)
    stops: list[Stop] = []
    frames = 0
    for start in range(0, len(data), piece_bytes):
        piece = data[start : start + piece_bytes]
        while (stop := reader.read(piece)) is not None or reader.is_full:
            piece, reader.frames, frames = b"", 0, frames + reader.frames
            if stop is not None:
                stops.append(stop)
            if isinstance(stop, CloseFrame):
                return stops, reader.messages, reader.pings, reader.pongs, frames
        ensure(len(reader._kept) < MAX_BYTES + LONGEST_HEADER, "at most one message of the largest size is buffered")
    return stops, reader.messages, reader.pings, reader.pongs, frames + reader.frames


def check(data: bytes) -> None:
    """Feed the input as a whole, in pieces, and byte by byte."""
    sent = data[1:]
    whole = outcome(sent, len(sent) or 1)
    ensure(outcome(sent, (data[0] if data else 0) or 1) == whole, "the size of the pieces does not matter")
    ensure(outcome(sent, 1) == whole, "single bytes give the same result")
    _, messages, pings, pongs, frames = whole
    ensure(len(messages) + len(pings) + len(pongs) <= frames, "each message, ping and pong has a frame")
    ensure(all(len(payload) <= MAX_BYTES for payload, _ in messages), "messages are within the limit")
    ensure(all(len(payload) <= 125 for payload in pings + pongs), "control frames are short")
    for payload, is_binary in messages:
        if not is_binary:
            payload.decode()  # raises an error if text is not UTF-8


if __name__ == "__main__":
    main(check)
