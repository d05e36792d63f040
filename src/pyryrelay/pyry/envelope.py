"""The routing envelope: wrap a phone's frame for its binary, and unwrap what a binary sends to a phone.

PURE. Payloads are whole WebSocket messages, as bytes. Depths count levels of arrays and objects.

Invariants:

- The inner frame is opaque. Its syntax is checked and its bytes pass unchanged; no object is built from it.
- A frame is accepted if it is one JSON text of RFC 8259 in UTF-8. Surrounding whitespace is allowed; a byte order mark,
  ``NaN`` and encoded surrogates are not. An escaped lone surrogate (``"\\ud800"``) is valid and passes.
- A frame may nest ``MAX_DEPTH`` levels deep, on every interpreter and in both directions.
- Arbitrary bytes raise ``FrameError`` and nothing else, in linear time. The error contains nothing of the content, not
  even as its cause.
"""

from __future__ import annotations

from array import array
from enum import StrEnum
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

import msgspec

from pyryrelay.close_codes import ALLOWED_CODES, CloseCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAX_DEPTH: Final = 512
"""Levels of arrays and objects in a frame. A bare scalar has none, ``[]`` has one."""


class EnvelopeErrorKind(StrEnum):
    """Why an envelope is dropped; the values are fit for metric labels."""

    MALFORMED = "malformed"
    MISSING_CONN_ID = "missing_conn_id"
    NOTHING_TO_DO = "nothing_to_do"
    BAD_CLOSE_CODE = "bad_close_code"


class FrameError(Exception):
    """A phone's frame is not one JSON text in UTF-8, or nests too deep. The phone is closed with ``close_code``."""

    close_code: ClassVar[int] = CloseCode.INVALID_PAYLOAD

    def __init__(self) -> None:
        super().__init__("the frame is not acceptable JSON")


class Unwrapped(msgspec.Struct, frozen=True, gc=False):
    """Deliver ``frame``, if there is one, to the phone ``conn_id``; then close the phone, if there is a code."""

    conn_id: str
    frame: bytes | None
    """The bytes exactly as sent, without the whitespace around them; None if the frame is absent or ``null``."""
    close_code: int
    """A code of ``ALLOWED_CODES``, or 0 for none."""


class PushWake(msgspec.Struct, frozen=True, gc=False):
    """A binary asks to wake a phone. The token is kept as long as this object, and is not in its `repr`."""

    platform: str
    token: str

    def __repr__(self) -> str:
        return f"PushWake(platform={self.platform!r})"


class _Envelope(msgspec.Struct, gc=False):
    conn_id: str | None = None
    frame: msgspec.Raw = msgspec.Raw()
    close_code: int | None = None
    push_wake: msgspec.Raw = msgspec.Raw()


_json_text = msgspec.json.Decoder(msgspec.Raw)
_envelope = msgspec.json.Decoder(_Envelope)
_push_wake = msgspec.json.Decoder(PushWake)
_GOING_AWAY: Final = CloseCode.GOING_AWAY
_NULL: Final = b"null"
_N: Final = 0x6E
_SPACE, _CLOSING_BRACE = b" }"
_MAY_BEGIN_OBJECT: Final = frozenset((b"{", b" ", b"\t", b"\r", b"\n"))
# msgspec raises ValueErrors, UnicodeDecodeError among them. MAX_DEPTH is well below what interpreters allow, so
# RecursionError occurs only if the caller's own stack is nearly used up.
_DECODE_ERRORS: Final = (ValueError, RecursionError)


def wrapping(conn_id: str) -> tuple[bytes, bytes]:
    """Return what precedes and follows a checked frame in the routing envelope of the phone ``conn_id``.

    The id is escaped as JSON; the bytes of the frame stand unchanged between the two.
    """
    return b'{"conn_id":' + msgspec.json.encode(conn_id) + b',"frame":', b"}"


def close_notice(conn_id: str, code: int) -> bytes:
    """Return the notice to a binary that the connection of the phone ``conn_id`` has ended by itself.

    ``code`` is the close code of the phone. A code that is not legal on the wire, such as that of a connection without
    a close frame, becomes 1001.
    """
    legal = code if code in ALLOWED_CODES else _GOING_AWAY
    return b'{"conn_id":' + msgspec.json.encode(conn_id) + b',"close_code":%d}' % legal


def push_feedback(wake: PushWake) -> bytes:
    """Return the message to a binary that the token of a wake is dead: the push service knows it no more."""
    return msgspec.json.encode(
        {"push_wake_result": {"platform": wake.platform, "token": wake.token, "outcome": "unregistered"}}
    )


def acceptable_frames(messages: Iterable[tuple[bytes, bool]]) -> list[bytes]:
    """Return the payloads of ``messages`` up to the first that ``check_frame`` refuses.

    A message is a payload and whether it is a binary message; text messages are known to be UTF-8.
    """
    frames: list[bytes] = []
    decode = _json_text.decode
    try:
        for payload, is_binary in messages:
            if is_binary or len(payload) > _MAX_FLAT_BYTES:
                check_frame(payload, utf8_checked=not is_binary)
            else:
                # A frame this short cannot be too deep.
                try:
                    decode(payload)
                except _DECODE_ERRORS:
                    check_frame(payload, utf8_checked=True)
            frames.append(payload)
    except FrameError:
        pass
    return frames


BatchT = TypeVar("BatchT", bound="list[bytes]")


def take_addressed(
    messages: Iterator[tuple[bytes, bool]], batches: Mapping[bytes, BatchT], head_bytes: int, filled: list[BatchT]
) -> tuple[bytes, bool] | None:
    """Sort the frames of ``messages`` into ``batches``, up to the first message that needs ``unwrap``.

    Returns that message, or None if there is none. ``batches`` has one batch for each phone, whose key is what
    ``wrapping`` puts before its frames; all keys are ``head_bytes`` long. An envelope that starts with a key and ends
    right after its frame needs no parsing: what is between is the frame, provided that it is one JSON text. Every
    encoder writes envelopes without a close code like this. Batches that were empty are appended to ``filled``.
    """
    # Nearly every message of every binary goes through here: plain code, without avoidable calls.
    decode, batch_of = _json_text.decode, batches.get
    for payload, is_binary in messages:
        batch = batch_of(payload[:head_bytes])
        if batch is None or is_binary or payload[-1] != _CLOSING_BRACE:
            return payload, is_binary
        frame = payload[head_bytes:-1]
        if len(frame) > _MAX_FLAT_BYTES and _is_deeper(frame, MAX_DEPTH):
            return payload, is_binary
        try:
            decode(frame)
        except _DECODE_ERRORS:
            return payload, is_binary
        # Whitespace around a frame is not part of it, and null counts as no frame.
        first = frame[0]
        if first <= _SPACE or first == _N or frame[-1] <= _SPACE:
            return payload, is_binary
        if not batch:
            filled.append(batch)
        batch.append(frame)
    return None


def check_frame(payload: bytes, utf8_checked: bool = False) -> None:
    """Raise ``FrameError`` unless this is one JSON text (RFC 8259) in UTF-8 that nests at most ``MAX_DEPTH`` deep.

    ``utf8_checked`` tells that the payload is known to be valid UTF-8, as that of a WebSocket text message is.
    """
    if not (utf8_checked or _is_utf8(payload)) or _is_deeper(payload, MAX_DEPTH):
        raise FrameError
    if not _is_json(payload) and not (_has_surrogates(payload) and _is_json(_without_surrogates(payload))):
        raise FrameError


def unwrap(payload: bytes, utf8_checked: bool = False) -> Unwrapped | PushWake | EnvelopeErrorKind:
    """Read a binary's message (pyry spec, "Routing envelope"), or return why it is not a usable envelope.

    ``utf8_checked`` is as for ``check_frame``. Unknown fields are ignored; the last of a repeated field counts.
    ``push_wake`` counts only without a ``conn_id``. Nothing is raised, so that a flood of bad envelopes costs little.
    """
    envelope = _read(payload, utf8_checked)
    if envelope is None:
        return EnvelopeErrorKind.MALFORMED
    conn_id, close_code = envelope.conn_id, envelope.close_code or 0
    if not conn_id:
        return _unwrap_push_wake(bytes(envelope.push_wake))
    if close_code and close_code not in ALLOWED_CODES:
        return EnvelopeErrorKind.BAD_CLOSE_CODE
    frame = bytes(envelope.frame)
    if frame and frame != _NULL:
        return Unwrapped(conn_id, frame, close_code)
    if not close_code:
        return EnvelopeErrorKind.NOTHING_TO_DO
    return Unwrapped(conn_id, None, close_code)


def _unwrap_push_wake(raw: bytes) -> PushWake | EnvelopeErrorKind:
    """Read the value of ``push_wake``."""
    if not raw or raw == _NULL:
        return EnvelopeErrorKind.MISSING_CONN_ID
    try:
        return _push_wake.decode(raw)
    except _DECODE_ERRORS:
        return EnvelopeErrorKind.MALFORMED


def _read(payload: bytes, utf8_checked: bool) -> _Envelope | None:
    """Decode the envelope around its frame; None if it is malformed."""
    # Other values than objects are not decoded: an error costs as much as ten envelopes.
    if payload[:1] not in _MAY_BEGIN_OBJECT or not (utf8_checked or _is_utf8(payload)):
        return None
    # A message this short cannot be too deep. The object of the envelope itself is one level more than its frame.
    if len(payload) > _MAX_FLAT_BYTES and _is_deeper(payload, MAX_DEPTH + 1):
        return None
    try:
        return _envelope.decode(payload)
    except _DECODE_ERRORS:
        pass
    if not _has_surrogates(payload) or not _is_json(_without_surrogates(payload)):
        return None
    try:
        envelope = _envelope.decode(_with_surrogates_masked(payload))
    except _DECODE_ERRORS:
        return None
    envelope.frame = msgspec.Raw(bytes(envelope.frame).replace(b"\xff", b"\\"))
    return envelope


def _is_utf8(payload: bytes) -> bool:
    """Tell whether this is UTF-8 as RFC 3629 defines it: no surrogates, nothing overlong."""
    if payload.isascii():
        return True
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_json(payload: bytes) -> bool:
    """Tell whether msgspec reads this as one JSON text. It does not check UTF-8, and refuses lone surrogate escapes."""
    try:
        _json_text.decode(payload)
    except _DECODE_ERRORS:
        return False
    return True


# Lone surrogate escapes, which msgspec refuses. Plain replacements of the same length avoid a callback for each.


def _has_surrogates(payload: bytes) -> bool:
    return b"\\ud" in payload or b"\\uD" in payload


def _without_surrogates(payload: bytes) -> bytes:
    """Replace ``\\ud...`` and ``\\uD...`` by ``\\u0...``, which is valid JSON exactly if the payload is."""
    # After an escaped backslash these characters are text, and stay text.
    return payload.replace(b"\\ud", b"\\u0").replace(b"\\uD", b"\\u0")


def _with_surrogates_masked(payload: bytes) -> bytes:
    """Replace the backslash of each such escape by 0xFF, which is easy to revert. Hex digits are not checked."""
    # Once the pairs of backslashes are hidden, every backslash in a string starts an escape. UTF-8 never
    # contains 0xFE and 0xFF, and msgspec accepts them inside strings.
    hidden = payload.replace(b"\\\\", b"\xfe\xfe")
    return hidden.replace(b"\\ud", b"\xffud").replace(b"\\uD", b"\xffuD").replace(b"\xfe\xfe", b"\\\\")


# Depth. msgspec recurses until the interpreter stops it, at a depth that depends on the version of Python and on the
# caller's own stack. Counting opening brackets comes first, and is enough for nearly every frame.

_MAX_FLAT_BYTES: Final = 2 * MAX_DEPTH
"""A payload that nests deeper than ``MAX_DEPTH`` is longer than this, or has brackets that are not closed."""
_MAX_FINDS: Final = 32
_BLOCK: Final = 256
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS: Final = bytes.maketrans(b"[]{}", b"\x01\xff\x01\xff")


def _is_deeper(payload: bytes, limit: int) -> bool:
    """Tell whether arrays and objects nest more than ``limit`` deep: exact for valid JSON, always in linear time."""
    if len(payload) <= 2 * limit or _count_openings(payload) <= limit:
        return False
    steps = _brackets(payload).translate(_STEPS)
    depth = 0
    for start in range(0, len(steps), _BLOCK):
        block = steps[start : start + _BLOCK]
        opened = block.count(1)
        # Only blocks that could exceed the limit are summed step by step, as signed bytes: +1 opens, -1 closes.
        if depth + opened > limit and depth + max(accumulate(array("b", block))) > limit:
            return True
        depth += 2 * opened - len(block)
    return False


def _count_openings(payload: bytes) -> int:
    """Count opening brackets and braces, inside strings as well."""
    total = 0
    for bracket in (b"[", b"{"):
        at = payload.find(bracket)
        # `find` skips what is between at many times the speed of `count`.
        for _ in range(_MAX_FINDS):
            if at < 0:
                break
            total += 1
            at = payload.find(bracket, at + 1)
        else:
            total += payload.count(bracket, at) if at >= 0 else 0
    return total


def _brackets(payload: bytes) -> bytes:
    """Return the brackets and braces that stand outside strings, in order."""
    unescaped = payload.replace(b"\\\\", b"").replace(b'\\"', b"")
    structure = unescaped.translate(None, _NOT_STRUCTURE)
    # Two quotes in a row end a string and start another, or are an empty string: what is inside strings stays inside.
    return b"".join(structure.replace(b'""', b"").split(b'"')[::2])
