"""PURE: client frames into messages (RFC 6455 section 5).

`FrameReader` takes everything that a correct client sends, straight out of the received bytes. Invalid headers go to
Autobahn, which chooses the close code and reason. Nearly all frames take a fast path, see
`pyryrelay.websocket.frames.scanners`.

Invariants: however the network cuts the stream, the outcome is the same; what is kept of an unfinished message is never
more than the largest message and one chunk; time is linear in the bytes, whatever they are. Invalid UTF-8 is noticed
within the chunk that holds its first wrong byte, so a data frame is unmasked and checked as it arrives; only headers
and control frames wait until they are whole. Sizes are bytes.
"""

from __future__ import annotations

from codecs import utf_8_decode
from dataclasses import dataclass
from typing import Final, TypeAlias

from autobahn.websocket.utf8validator import Utf8Validator

from pyryrelay.close_codes import CloseCode
from pyryrelay.websocket.frames.header import (
    BINARY_OPCODE,
    CLOSE,
    FIN,
    LENGTH_16_BIT,
    MASKED,
    MAX_7_BIT,
    MAX_16_BIT,
    MAX_63_BIT,
    PING,
    PONG,
    RSV,
    header_bytes,
)
from pyryrelay.websocket.frames.scanners import LARGE, Scanners, apply_mask

__all__ = ["MANY_FRAMES", "BadHeader", "Breach", "CloseFrame", "FrameReader", "Stop"]

MANY_FRAMES: Final = 2048
"""About how many are taken at once unless ``most_frames`` is changed: a millisecond's work where they are cheap."""
_GROWN: Final = 32768
"""Up to what size small payloads are collected in one buffer: moving a larger one for the next would take too long."""


@dataclass(frozen=True, slots=True)
class Breach:
    """The peer broke a limit or a rule: close with ``code``. Reading goes on behind the frame."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class BadHeader:
    """A frame header that is not allowed there. ``raw`` is all of it, at most 14 bytes."""

    raw: bytes
    inside_message: bool


@dataclass(frozen=True, slots=True)
class CloseFrame:
    """The peer's close frame, its payload unmasked and not checked. Nothing comes after it."""

    payload: bytes


Stop: TypeAlias = Breach | BadHeader | CloseFrame


class FrameReader(Scanners):
    """The receiving side of one connection.

    `read` adds to ``messages``, ``pings`` and ``pongs`` (payloads); the caller empties them. ``frames`` counts every
    frame that was taken or refused, until the caller sets it to 0. ``is_full``: ``most_frames`` were reached, and the
    rest was kept. Set ``discarding`` once only the peer's close frame still matters: then `read` reports that one, and
    headers that break the protocol, and nothing else.
    """

    __slots__ = (
        "_fragments",
        "_growing",
        "_is_binary",
        "_is_last",
        "_kept",
        "_left",
        "_mask",
        "_max_fragments",
        "_needed",
        "_parts",
        "_parts_bytes",
        "_text_bytes",
        "_undecided",
        "discarding",
        "is_full",
    )

    def __init__(self, max_bytes: int, max_fragments: int) -> None:
        """Allow a message ``max_bytes`` in at most ``max_fragments`` frames."""
        self.messages = []
        self.pings = []
        self.pongs = []
        self.frames = 0
        self.is_full = False
        self.most_frames = MANY_FRAMES
        self.discarding = False
        self._max_bytes = max_bytes
        self._max_fragments = max_fragments
        self._kept = bytearray()  # the beginning of a header or control frame, or what is read later
        self._needed = 0  # how much must be there until it is worth looking again
        self._left = 0  # how much of a data frame, or of one that was refused, is to come
        self._mask: bytes | bytearray = b""  # of what is to come
        self._parts: list[bytes | bytearray] = []  # of a message that has begun
        self._growing: bytearray | None = None  # the last of them, which takes small payloads
        self._parts_bytes = 0  # of all its frames, with what is to come of the last
        self._fragments = 0
        self._is_binary = False
        self._is_last = False
        self._undecided = b""  # the beginning of a character
        self._text_bytes = 0  # before that

    @property
    def inside_message(self) -> bool:
        """Say whether a fragmented message has begun."""
        return self._fragments > 0

    @property
    def kept_bytes(self) -> int:
        """Return how much of what was read is not parsed yet."""
        return len(self._kept)

    @property
    def incomplete(self) -> bool:
        """Say whether a message, or any frame, has begun and is not complete."""
        return bool(self._kept) or self._fragments > 0 or self._left > 0

    def read(self, data: bytes) -> Stop | None:
        """Take in ``data``; return what the caller must act upon before it calls `read` again, if anything.

        None means that nothing whole is left, or that ``is_full``. `read` continues where it stopped, also without new
        ``data``.
        """
        self.is_full = False
        chunk: bytes | bytearray = self._join(data) if self._kept else data
        at, stop = self._go_on(data) if self._left else (0, None)
        while at < len(chunk) and stop is None:
            if self.frames >= self.most_frames:
                self.is_full = True
                break
            if self.discarding:
                at = self._skip_plain(chunk, at)
            elif not self._fragments:
                at = self._take_plain(chunk, at)
            if at >= len(chunk):
                break
            before = at
            at, stop = self._take_one(chunk, at)
            if at == before:
                break
        if at < len(chunk):
            self._kept = bytearray(memoryview(chunk)[at:])
            if stop is not None or self.is_full:
                self._needed = 0
        return stop

    def _join(self, data: bytes) -> bytes | bytearray:
        """Return what there is to parse; empty while the header or control frame that has begun is not complete."""
        kept = self._kept
        if len(kept) + len(data) >= self._needed and len(kept) < len(data):
            # Slices of bytes are cheaper than those of a bytearray.
            self._kept = bytearray()
            return b"".join((kept, data))
        # A peer may send its frame one byte at a time: growing must not copy everything each time.
        kept += data
        if len(kept) < self._needed:
            return b""
        self._kept = bytearray()
        return kept

    def _take_one(self, data: bytes | bytearray, at: int) -> tuple[int, Stop | None]:
        """Take one frame of any kind, or what there is of a data frame; return the position behind it.

        This is the complete scanner. The position does not move if a header or a control frame is not complete.
        """
        left = len(data) - at
        header = header_bytes(data[at + 1]) if left >= 2 else 2
        if left < header:
            self._needed = header
            return at, None
        first, length, is_bad = self._judge(data, at, header)
        start, end = at + header, at + header + length
        refusal: Stop | None = None
        if is_bad:
            refusal = BadHeader(bytes(data[at:start]), self.inside_message)
        elif first >= CLOSE:
            if end > len(data):
                self._needed = end - at
                return at, None
            self.frames += 1
            return end, self._control(first, apply_mask(memoryview(data)[start:end], data[start - 4 : start]))
        elif not self.discarding:
            refusal = self._over_limit(length)
        stop = min(end, len(data))
        self._left = end - stop
        if refusal is not None:
            self._discard()
        if self.discarding:
            self.frames += 1
            return stop, refusal
        self._begin(first, length)
        return stop, self._add(memoryview(data)[start:stop], data[start - 4 : start])

    def _go_on(self, data: bytes) -> tuple[int, Stop | None]:
        """Take more of a frame that has begun; return the position behind it."""
        left, size = self._left, len(data)
        if size > left:
            data, size = data[:left], left
        self._left = left - size
        return size, None if self.discarding else self._add(data, self._mask)

    def _judge(self, data: bytes | bytearray, at: int, header: int) -> tuple[int, int, bool]:
        """Return first byte and payload length of a header, and whether RFC 6455 section 5.2 or 5.5 forbids it."""
        first, second = data[at], data[at + 1]
        length = second & 0x7F
        if length > MAX_7_BIT:
            extended = 2 if length == LENGTH_16_BIT else 8
            least = MAX_7_BIT + 1 if extended == 2 else MAX_16_BIT + 1
            length = int.from_bytes(data[at + 2 : at + 2 + extended], "big")
            is_bad = not least <= length <= MAX_63_BIT
        else:
            is_bad = first == CLOSE and length == 1
        if second < MASKED or first & RSV:
            is_bad = True
        elif first >= CLOSE:
            is_bad = is_bad or first > PONG or length > MAX_7_BIT
        elif self.discarding:
            is_bad = is_bad or first & ~FIN > BINARY_OPCODE
        else:
            is_bad = is_bad or first & ~FIN > BINARY_OPCODE or (first & ~FIN == 0) != self.inside_message
        return first, length, is_bad

    def _over_limit(self, length: int) -> Breach | None:
        """Return what is wrong with a data frame of this length, if anything."""
        if self._fragments and self._fragments >= self._max_fragments:
            return Breach(CloseCode.POLICY_VIOLATION, "too many fragments")
        total = self._parts_bytes + length
        if total > self._max_bytes:
            words = f"received WebSocket message size {total} exceeds payload limit of {self._max_bytes} octets"
            return Breach(CloseCode.MESSAGE_TOO_BIG, words)
        return None

    def _control(self, first: int, payload: bytes) -> Stop | None:
        if first == CLOSE:
            return CloseFrame(payload)
        if not self.discarding:
            (self.pings if first == PING else self.pongs).append(payload)
        return None

    def _begin(self, first: int, length: int) -> None:
        """Begin a data frame, and its message unless it is a continuation."""
        if not self._fragments:
            self._is_binary = first & ~FIN == BINARY_OPCODE
            self._undecided, self._text_bytes = b"", 0
        self._is_last = first >= FIN
        self._parts_bytes += length
        self._fragments += 1

    def _add(self, masked: bytes | memoryview, mask: bytes | bytearray) -> Breach | None:
        """Add the next bytes of a data frame to its message; ``_left`` more of them are still to come."""
        payload, growing = apply_mask(masked, mask), self._growing
        if not self._is_binary and (fault := self._fault(payload)) is not None:
            self.frames += 1
            self._discard()
            return Breach(CloseCode.INVALID_PAYLOAD, fault)
        if len(payload) >= LARGE:
            self._parts.append(payload)
            self._growing = None
        elif growing is None or len(growing) >= _GROWN:
            self._growing = bytearray(payload)
            self._parts.append(self._growing)
        else:
            growing += payload
        if self._left:
            turn = len(payload) % 4
            self._mask = mask[turn:] + mask[:turn] if turn else mask
            return None
        self.frames += 1
        if self._is_last:
            self.messages.append((b"".join(self._parts), self._is_binary))
            self._end_message()
        return None

    def _fault(self, payload: bytes) -> str | None:
        """Return what is wrong with the next bytes of a text message, in Autobahn's words."""
        if self._undecided or not payload.isascii():
            text = self._undecided + payload
            try:
                decided = utf_8_decode(text, "strict", False)[1]
            except UnicodeDecodeError as error:
                decided = error.start
            self._undecided = text[decided:]
            self._text_bytes += decided
        else:
            self._text_bytes += len(payload)
        if self._undecided:
            # The codec accepts the beginning of a surrogate.
            may_be_text, _, _, index = Utf8Validator().validate(self._undecided)
            index += self._text_bytes
            if not may_be_text:
                return f"encountered invalid UTF-8 while processing text message at payload octet index {index}"
            if self._is_last and not self._left:
                return f"UTF-8 text message payload ended within Unicode code point at payload octet index {index}"
        return None

    def _discard(self) -> None:
        self.discarding = True
        self._end_message()

    def _end_message(self) -> None:
        self._parts, self._growing = [], None
        self._parts_bytes = self._fragments = 0
