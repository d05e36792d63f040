"""Sans-I/O WebSocket framing (RFC 6455 section 5): client frames into messages, messages into server frames.

`FrameReader` takes everything that an obedient client sends, straight out of the received bytes. What breaks a rule of
the frame header is left to Autobahn, which has the words for it. Invariants: however the stream is cut, the outcome is
the same; what is kept of an unfinished message is never more than the largest message and one chunk; time is linear in
the bytes, whatever they are. Invalid UTF-8 is noticed within the chunk that holds its first wrong byte, so a data frame
is unmasked and checked as it comes; only headers and control frames wait until they are whole.

A server's frames are never masked and ours are not fragmented here, so a frame is a short header and the payload.
Sizes are bytes.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from codecs import utf_8_decode
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from typing import Final, TypeAlias

from autobahn.websocket.utf8validator import Utf8Validator

from pyryrelay.close_codes import CloseCode

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover  # a platform without its C extension
    from websockets.utils import apply_mask

FIN: Final = 0x80
TEXT: Final = 0x81
"""The first byte of a text message in one frame, as of the following kinds."""
BINARY: Final = 0x82
CLOSE: Final = 0x88
PING: Final = 0x89
PONG: Final = 0x8A

_WHOLE_MESSAGE: Final = (TEXT, BINARY)
_PING_PONG: Final = (PING, PONG)
_DISCARDED: Final = (TEXT, PING, BINARY, PONG, 0x01, 0x00, 0x80, 0x02)
_RSV: Final = 0x70
_BINARY_OPCODE: Final = 2
_MASKED: Final = 0x80
_MASKED_16_BIT: Final = 0xFE
_MASKED_64_BIT: Final = 0xFF
_MAX_7_BIT: Final = 125
_MAX_16_BIT: Final = (1 << 16) - 1
_MAX_63_BIT: Final = (1 << 63) - 1
_SHORTEST: Final = 6
"""A masked frame without a payload."""
_UNPACK_SHORT: Final = [struct.Struct(f"4s{size}s").unpack_from for size in range(_MAX_7_BIT + 1)]
"""For each length of a short payload: mask and payload in one call."""
MANY_FRAMES: Final = 2048
"""About as many are taken at once, unless ``most_frames`` says otherwise: a millisecond's work where they are cheap."""
_LARGE: Final = 4096
"""A payload that it takes longer to copy than to make a view of, and that may take an object of its own."""
_GROWN: Final = 32768
"""Where small payloads are put together, until it would take too long to move them for the next one."""


@dataclass(frozen=True, slots=True)
class Breach:
    """The peer broke a limit or a rule: close with ``code``. What follows the frame is read on."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class BadHeader:
    """A frame header that nobody may send there. ``raw`` is all of it, at most 14 bytes."""

    raw: bytes
    inside_message: bool


@dataclass(frozen=True, slots=True)
class CloseFrame:
    """The peer's close frame, its payload unmasked; what it holds is not checked. Nothing comes after it."""

    payload: bytes


Stop: TypeAlias = Breach | BadHeader | CloseFrame


class FrameReader:
    """The receiving side of one connection.

    `read` adds to ``messages``, ``pings`` and ``pongs`` (payloads), which whoever calls it takes out. ``frames`` counts
    every frame that was taken or refused, until it is set to 0. ``is_full``: there were ``most_frames``, or a few more,
    and the rest was kept.
    Set ``discarding`` once nothing but the peer's close frame matters any more: then only that one and what breaks the
    protocol is reported.
    """

    __slots__ = (
        "_fragments",
        "_growing",
        "_is_binary",
        "_is_last",
        "_kept",
        "_left",
        "_mask",
        "_max_bytes",
        "_max_fragments",
        "_needed",
        "_parts",
        "_parts_bytes",
        "_text_bytes",
        "_undecided",
        "discarding",
        "frames",
        "is_full",
        "messages",
        "most_frames",
        "pings",
        "pongs",
    )

    def __init__(self, max_bytes: int, max_fragments: int) -> None:
        """A message has at most ``max_bytes`` in at most ``max_fragments`` frames."""
        self.messages: list[tuple[bytes, bool]] = []
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
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
        """Whether a fragmented message has begun."""
        return self._fragments > 0

    @property
    def kept_bytes(self) -> int:
        """How much of what was read is not parsed."""
        return len(self._kept)

    @property
    def incomplete(self) -> bool:
        """Whether a message, or any frame, has begun and is not complete."""
        return bool(self._kept) or self._fragments > 0 or self._left > 0

    def read(self, data: bytes) -> Stop | None:
        """Take in ``data``. None once nothing whole is left; otherwise what to act upon before `read` is called again.

        It goes on where it stopped, also with no new ``data``. After ``most_frames`` it is None too, and ``is_full``.
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
        """What there is to parse; empty while the header or control frame that has begun is not complete."""
        kept = self._kept
        if len(kept) + len(data) >= self._needed and len(kept) < len(data):
            # Slices of bytes are cheaper than those of a bytearray.
            self._kept = bytearray()
            return b"".join((kept, data))
        # A peer may send its frame a byte at a time: growing must not copy everything each time.
        kept += data
        if len(kept) < self._needed:
            return b""
        self._kept = bytearray()
        return kept

    def _take_plain(self, data: bytes | bytearray, at: int) -> int:
        """Take whole text, binary, ping and pong frames; the position of the first frame that is anything else.

        This is what nearly every frame of every peer goes through: plain code without a call that can be spared.
        """
        at = self._take_short_texts(data, at) if data[at] == TEXT and self._max_bytes >= _MAX_7_BIT else at
        messages, max_bytes, size, frames = self.messages, self._max_bytes, len(data), self.frames
        most_frames = self.most_frames
        while size - at >= _SHORTEST and frames < most_frames:
            first, second = data[at], data[at + 1]
            if _MASKED <= second < _MASKED_16_BIT:
                start = at + 6
                end = start + second - _MASKED
            elif second == _MASKED_16_BIT and size - at >= 8:
                start = at + 8
                end = start + (data[at + 2] << 8 | data[at + 3])
                if end - start <= _MAX_7_BIT:
                    break
            elif second == _MASKED_64_BIT and size - at >= 14:
                start = at + 14
                end = start + int.from_bytes(data[at + 2 : at + 10], "big")
                if end - start <= _MAX_16_BIT:
                    break
            else:
                break
            if end > size or end - start > max_bytes:
                break
            if first in _WHOLE_MESSAGE:
                masked = data[start:end] if end - start < _LARGE else memoryview(data)[start:end]
                payload = apply_mask(masked, data[start - 4 : start])
                if first == TEXT and not payload.isascii() and not _is_utf8(payload):
                    break
                messages.append((payload, first == BINARY))
            elif first in _PING_PONG and second < _MASKED_16_BIT:
                payload = apply_mask(data[start:end], data[start - 4 : start]) if start < end else b""
                (self.pings if first == PING else self.pongs).append(payload)
            else:
                break
            frames += 1
            at = end
        self.frames = frames
        return at

    def _take_short_texts(self, data: bytes | bytearray, at: int) -> int:
        """Take whole text frames of at most 125 bytes; the position of the first frame that is anything else.

        Most chunks hold nothing else, and here a frame costs three calls. Which frames are whole is left for the
        unpacker to find out: it fails once, at the end of the chunk.
        """
        messages, before = self.messages, len(self.messages)
        try:
            for _ in repeat(None, self.most_frames):
                second = data[at + 1]
                if data[at] != TEXT or not _MASKED <= second < _MASKED_16_BIT:
                    break
                mask, masked = _UNPACK_SHORT[second - _MASKED](data, at + 2)
                payload = apply_mask(masked, mask)
                if not payload.isascii() and not _is_utf8(payload):
                    break
                messages.append((payload, False))
                at += second - _MASKED + _SHORTEST
        except (IndexError, struct.error):
            pass
        self.frames += len(messages) - before
        return at

    def _skip_plain(self, data: bytes | bytearray, at: int) -> int:
        """Pass over whole, short frames that do not matter any more; the position of the first that is anything else.

        Whoever floods while it is being closed must not cost more than before.
        """
        size, frames = len(data), self.frames
        for _ in repeat(None, max(0, self.most_frames - frames)):
            if size - at < _SHORTEST or data[at] not in _DISCARDED or not _MASKED <= data[at + 1] < _MASKED_16_BIT:
                break
            end = at + _SHORTEST + data[at + 1] - _MASKED
            if end > size:
                break
            frames += 1
            at = end
        self.frames = frames
        return at

    def _take_one(self, data: bytes | bytearray, at: int) -> tuple[int, Stop | None]:
        """Take one frame of any kind, or what there is of a data frame: the position behind it.

        It does not move if a header or a control frame is not complete.
        """
        left = len(data) - at
        header = _header_bytes(data[at + 1]) if left >= 2 else 2
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
        """Take more of a frame that has begun; the position behind it."""
        left, size = self._left, len(data)
        if size > left:
            data, size = data[:left], left
        self._left = left - size
        return size, None if self.discarding else self._add(data, self._mask)

    def _judge(self, data: bytes | bytearray, at: int, header: int) -> tuple[int, int, bool]:
        """First byte and payload length of a header, and whether RFC 6455 section 5.2 or 5.5 forbids it."""
        first, second = data[at], data[at + 1]
        length = second & 0x7F
        if length > _MAX_7_BIT:
            extended = 2 if length == _MAX_7_BIT + 1 else 8
            least = _MAX_7_BIT + 1 if extended == 2 else _MAX_16_BIT + 1
            length = int.from_bytes(data[at + 2 : at + 2 + extended], "big")
            is_bad = not least <= length <= _MAX_63_BIT
        else:
            is_bad = first == CLOSE and length == 1
        if second < _MASKED or first & _RSV:
            is_bad = True
        elif first >= CLOSE:
            is_bad = is_bad or first > PONG or length > _MAX_7_BIT
        elif self.discarding:
            is_bad = is_bad or first & ~FIN > _BINARY_OPCODE
        else:
            is_bad = is_bad or first & ~FIN > _BINARY_OPCODE or (first & ~FIN == 0) != self.inside_message
        return first, length, is_bad

    def _over_limit(self, length: int) -> Breach | None:
        """What is wrong with a data frame of this length, if anything."""
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
        (self.pings if first == PING else self.pongs).append(payload)
        return None

    def _begin(self, first: int, length: int) -> None:
        """A data frame begins, and perhaps its message."""
        if not self._fragments:
            self._is_binary = first & ~FIN == _BINARY_OPCODE
            self._undecided, self._text_bytes = b"", 0
        self._is_last = first >= FIN
        self._parts_bytes += length
        self._fragments += 1

    def _add(self, masked: bytes | memoryview, mask: bytes | bytearray) -> Breach | None:
        """Add the next bytes of a data frame, of which ``_left`` are to come, to its message."""
        payload, growing = apply_mask(masked, mask), self._growing
        if not self._is_binary and (fault := self._fault(payload)) is not None:
            self.frames += 1
            self._discard()
            return Breach(CloseCode.INVALID_PAYLOAD, fault)
        if len(payload) >= _LARGE:
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
        """What is wrong with the next bytes of a text message, as Autobahn says it."""
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
            # The codec lets the beginning of a surrogate pass.
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


def _header_bytes(second: int) -> int:
    """The length of a frame's header, by its second byte."""
    short = 6 if second >= _MASKED else 2
    return short + {126: 2, 127: 8}.get(second & 127, 0)


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


# Sending

SLICE_BYTES: Final = 65536
"""About how much is handed to a transport at once."""

Encoded: TypeAlias = tuple[bytes, int]
"""Whole frames one behind the other, and how many they are."""


def encode(
    payloads: Sequence[bytes], *, binary: bool = False, before: bytes = b"", after: bytes = b""
) -> list[Encoded]:
    """Unfragmented, unmasked data frames, each around ``before``, a payload and ``after``, in slices of whole frames.

    A slice ends with the frame that takes it to `SLICE_BYTES`.
    """
    first, extra = BINARY if binary else TEXT, len(before) + len(after)
    if len(payloads) == 1:
        payload = payloads[0]
        return [(b"".join((frame_head(first, len(payload) + extra), before, payload, after)), 1)]
    sizes = list(map(len, payloads))
    if 0 < sum(sizes) + extra * len(sizes) <= SLICE_BYTES:
        return [(_join(first, payloads, sizes, before, after), len(sizes))]
    ends = list(accumulate(size + extra for size in sizes))
    slices, start, reached = [], 0, 0
    while start < len(sizes):
        stop = min(bisect_left(ends, reached + SLICE_BYTES, start) + 1, len(sizes))
        joined = _join(first, payloads[start:stop], sizes[start:stop], before, after)
        slices.append((joined, stop - start))
        start, reached = stop, ends[stop - 1]
    return slices


def _join(first: int, payloads: Sequence[bytes], sizes: Sequence[int], before: bytes, after: bytes) -> bytes:
    """Frames, one behind the other; ``sizes`` are those of their payloads."""
    extra = len(before) + len(after)
    heads = {size: frame_head(first, size + extra) + before for size in set(sizes)}
    if len(heads) == 1 and not after:
        # A stream of equal frames, as those of a camera or a microphone, is what comes in batches.
        (head,) = heads.values()
        return head.join([b"", *payloads])
    # Every other, or third, place at once: no frame needs a step of its own.
    stride = 3 if after else 2
    parts = [after] * (stride * len(sizes))
    parts[::stride] = map(heads.__getitem__, sizes)
    parts[1::stride] = payloads
    return b"".join(parts)


def pongs(payloads: Sequence[bytes]) -> bytes:
    """Pong frames, one behind the other. No payload is longer than 125 bytes."""
    return b"".join([_PONG_HEADS[len(payload)] + payload for payload in payloads])


_PONG_HEADS: Final = tuple(bytes((PONG, size)) for size in range(_MAX_7_BIT + 1))


def frame_head(first: int, size: int) -> bytes:
    """The header of an unmasked frame with that first byte, around a payload of ``size`` bytes."""
    if size <= _MAX_7_BIT:
        return bytes((first, size))
    if size <= _MAX_16_BIT:
        return bytes((first, 126, size >> 8, size & 0xFF))
    return bytes((first, 127)) + size.to_bytes(8, "big")
