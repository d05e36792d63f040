"""Read from one socket and send to another at once, through a buffer that the whole process shares.

The bytes never become an object of Python's, and a chunk may be larger than those that Twisted reads, so that a stream
takes fewer system calls and fewer turns. It costs no memory for each connection: within a call the kernel takes
everything, or what it does not take is given to the transport, which waits until it can send that.

Sizes are bytes.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection

__all__ = ["LEAST_CHUNK_BYTES", "MOST_CHUNK_BYTES", "pass_on"]

LEAST_CHUNK_BYTES: Final = 65536
"""What Twisted reads at once."""
MOST_CHUNK_BYTES: Final = 262144
"""What the relay reads at once from a peer that streams (`pyryrelay.websocket.reading.read_size`)."""
_buffer: Final = bytearray(MOST_CHUNK_BYTES)
_view: Final = memoryview(_buffer)


def pass_on(source: Connection, sink: Connection, size: int) -> int | Exception:
    """Pass a chunk of at most ``size`` on, and return its size; or why the connection it comes from is lost.

    The sink is connected, holds nothing, and its write side has not been ended. It holds what the kernel has not taken
    of the chunk. An error of it shows when its transport writes or reads.
    """
    try:
        size = source.getHandle().recv_into(_buffer, size)
    except BlockingIOError:
        return 0
    except OSError:
        return CONNECTION_LOST
    if not size:
        return CONNECTION_DONE
    try:
        sent = sink.getHandle().send(_view[:size])
    except OSError:
        sent = 0
    if sent < size:
        sink.write(bytes(_view[sent:size]))
    return size
