"""A message of bytes with descriptors, between two processes that have no reactor yet.

It is the length of the bytes in 4 bytes, big-endian, with the first descriptors as SCM_RIGHTS, and the bytes. Further
descriptors follow, some at a time, each time with one byte. Received descriptors are inherited by no child.
"""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["AT_ONCE", "DescriptorError", "close_all", "receive_with_descriptors", "send_with_descriptors"]

AT_ONCE: Final = 250
"""The kernel passes 253 descriptors at once."""
_LENGTH: Final = struct.Struct("!I")
_MORE: Final = b"+"


class DescriptorError(Exception):
    """A message cannot be received; `str` of it is a part of a line. What was received with it is closed."""


def send_with_descriptors(end: socket.socket, body: bytes, descriptors: Sequence[int]) -> None:
    """Send a message. Raises `OSError`."""
    socket.send_fds(end, [_LENGTH.pack(len(body))], descriptors[:AT_ONCE])
    end.sendall(body)
    for first in range(AT_ONCE, len(descriptors), AT_ONCE):
        socket.send_fds(end, [_MORE], descriptors[first : first + AT_ONCE])


def receive_with_descriptors(
    end: socket.socket, max_bytes: int, count: Callable[[bytes], int]
) -> tuple[bytes, list[int]]:
    """Wait for a message of at most ``max_bytes``, and return it with its descriptors.

    ``count`` returns how many of these a message says to have. Raises `DescriptorError`.
    """
    descriptors: list[int] = []
    try:
        head = _receive_some(end, _LENGTH.size, descriptors)
        if not head:
            raise DescriptorError("the other process has ended")
        (length,) = _LENGTH.unpack(head)
        if length > max_bytes:
            raise DescriptorError("a message is too long")
        body = _receive_exactly(end, length)
        while len(descriptors) < count(body) and _receive_some(end, len(_MORE), descriptors):
            pass
    except (OSError, struct.error) as error:
        close_all(descriptors)
        raise DescriptorError(str(error)) from None
    except DescriptorError:
        close_all(descriptors)
        raise
    return body, descriptors


def _receive_some(end: socket.socket, size: int, descriptors: list[int]) -> bytes:
    """Return so many bytes, or fewer at the end, and add the descriptors that came with them."""
    item_bytes = array.array("i").itemsize
    flags = socket.MSG_WAITALL | getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    data, ancillary, _, _ = end.recvmsg(size, socket.CMSG_SPACE(AT_ONCE * item_bytes), flags)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found = array.array("i")
            found.frombytes(content[: len(content) - len(content) % item_bytes])
            descriptors += found
    return data


def _receive_exactly(end: socket.socket, length: int) -> bytes:
    body = bytearray()
    while len(body) < length:
        chunk = end.recv(length - len(body))
        if not chunk:
            raise DescriptorError("the other process has ended")
        body += chunk
    return bytes(body)


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors that nobody will use."""
    for descriptor in descriptors:
        socket.close(descriptor)
