"""Raw peers that can send any bytes, with heads and frames, valid or not.

They read HTTP answers and WebSocket frames strictly by RFC 9112 and RFC 6455. Sizes are bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.end_to_end.harness import DEADLINE_S, Relay

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
SAMPLE_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of RFC 6455 section 1.3."""
SAMPLE_ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MASK = bytes.fromhex("37fa213d")
"""The masking key of the examples in RFC 6455 section 5.7."""

Fields = Sequence[tuple[str, str]]
Address = tuple[str, int] | Path


def head(target: str, *fields: tuple[str, str], method: str = "GET", version: str = "1.1") -> bytes:
    """Return a request head."""
    lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


UPGRADE: Fields = (
    ("Host", "relay"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", SAMPLE_KEY),
    ("User-Agent", "raw"),
)


def upgrade(path: str, server_id: str, *more: tuple[str, str]) -> bytes:
    """Return the head of a valid upgrade."""
    version = [("x-pyrycode-version", "1")] if path.endswith("server") else []
    return head(path, *UPGRADE, ("x-pyrycode-server", server_id), *version, *more)


def masked(payload: bytes) -> bytes:
    """Return a payload as a client sends it under `MASK` (RFC 6455 section 5.3)."""
    return bytes(byte ^ MASK[index % 4] for index, byte in enumerate(payload)) if any(payload) else _zeros(payload)


def _zeros(payload: bytes) -> bytes:
    return (MASK * (len(payload) // 4 + 1))[: len(payload)]


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool = True) -> bytes:
    """Return one frame (RFC 6455 section 5.2), valid or not."""
    size = len(payload)
    bit = 0x80 if mask else 0
    first = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if size < 126:
        length = bytes([bit | size])
    elif size < 65536:
        length = bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([bit | 127]) + size.to_bytes(8, "big")
    return first + length + (MASK + masked(payload) if mask else payload)


def close_frame(code: int, reason: bytes = b"") -> bytes:
    """Return a close frame with any code."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


@dataclass(frozen=True)
class Response:
    """An HTTP answer. Names of fields are lower-case."""

    status: int
    fields: dict[str, str]
    body: bytes = b""


class Raw:
    """A connection on which anything can be sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._parts: list[tuple[int, bytes]] = []  # Of an incomplete message.

    async def send(self, data: bytes) -> None:
        """Write, unless the relay has reset the connection."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            async with asyncio.timeout(DEADLINE_S):
                await self.writer.drain()

    async def response(self) -> Response:
        """Return the head of an answer."""
        text = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), DEADLINE_S)).decode("latin-1")
        status, *lines = text.removesuffix("\r\n\r\n").split("\r\n")
        assert status.startswith("HTTP/1.1 ")
        named = [line.split(": ", 1) for line in lines]
        fields = {name.lower(): value for name, value in named}
        assert len(fields) == len(named), "a field is repeated"
        return Response(int(status.split()[1]), fields)

    async def rest(self) -> bytes:
        """Return everything until the relay closes the connection, which it must do by itself."""
        return await asyncio.wait_for(self.reader.read(), DEADLINE_S)

    async def gone(self) -> None:
        """Wait for the end of the connection, by FIN or RST."""
        with contextlib.suppress(ConnectionError):
            await self.rest()

    async def frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame, which must be whole, as it is for peers that keep up."""
        first, payload = await asyncio.wait_for(self._frame(), DEADLINE_S)
        assert first & 0xF0 == 0x80
        return first & 0x0F, payload

    async def message(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next message, or of a control frame before its end.

        A peer that was slow gets long messages in fragments (RFC 6455 section 5.4).
        """
        while True:
            first, payload = await asyncio.wait_for(self._frame(), DEADLINE_S)
            opcode = first & 0x0F
            if opcode >= CLOSE:
                return opcode, payload
            assert (opcode == 0) == bool(self._parts)
            self._parts.append((opcode, payload))
            if first & 0x80:
                parts, self._parts = self._parts, []
                return parts[0][0], b"".join(part for _, part in parts)

    async def _frame(self) -> tuple[int, bytes]:
        first, size = await self.reader.readexactly(2)
        assert first & 0x70 == 0
        assert size < 128
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await self.reader.readexactly(8), "big")
        return first, await self.reader.readexactly(size)

    async def close_code(self) -> int:
        """Return the code of the next close frame, whatever precedes it."""
        while (received_frame := await self.message())[0] != CLOSE:
            pass
        return int.from_bytes(received_frame[1][:2], "big")

    def reset(self) -> None:
        """End the connection with a RST, as a crash does."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


def _socket(address: Address, source: str | None, receive_bytes: int | None) -> tuple[socket.socket, Any]:
    if isinstance(address, Path):
        return socket.socket(socket.AF_UNIX), str(address)
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    if source is not None:
        sock.bind((source, 0))
    return sock, address


@contextlib.asynccontextmanager
async def raw(address: Address, *, source: str | None = None, receive_bytes: int | None = None) -> AsyncIterator[Raw]:
    """Connect from ``source``; ``receive_bytes`` bounds what the kernel takes for a peer that does not read."""
    sock, where = _socket(address, source, receive_bytes)
    sock.setblocking(False)
    try:
        await asyncio.wait_for(asyncio.get_running_loop().sock_connect(sock, where), DEADLINE_S)
        reader, writer = await asyncio.open_connection(sock=sock)
    except BaseException:
        sock.close()
        raise
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask(address: Address, request: bytes, *, source: str | None = None) -> Response:
    """Send a request, and read the answer and everything until the relay closes the connection."""
    async with raw(address, source=source) as peer:
        await peer.send(request)
        answer = await peer.response()
        return Response(answer.status, answer.fields, await peer.rest())


async def statuses(address: Address, request: bytes, count: int, *, source: str | None = None) -> list[int]:
    """Return the statuses of that many attempts, one after the other; an upgraded connection is closed at once."""
    found = []
    for _ in range(count):
        async with raw(address, source=source) as peer:
            await peer.send(request)
            found.append((await peer.response()).status)
    return found


async def silence(address: Address, request: bytes, *, source: str | None = None) -> bool:
    """Tell whether the relay ends the connection without a byte, instead of answering the request."""
    try:
        async with raw(address, source=source) as peer:
            await peer.send(request)
            return not await asyncio.wait_for(peer.reader.read(1), DEADLINE_S)
    except ConnectionError:
        return True


@contextlib.asynccontextmanager
async def raw_peer(
    relay: Relay,
    server_id: str,
    path: str = "/v1/client",
    *fields: tuple[str, str],
    source: str | None = None,
    receive_bytes: int | None = None,
) -> AsyncIterator[Raw]:
    """Return a raw connection after its upgrade; it sends nothing by itself, not even a pong."""
    async with raw(relay.address, source=source, receive_bytes=receive_bytes) as peer:
        await peer.send(upgrade(path, server_id, *fields))
        answer = await peer.response()
        assert (answer.status, answer.fields["sec-websocket-accept"]) == (101, SAMPLE_ACCEPT)
        yield peer
