"""The routing envelope: only `FrameError` escapes, and the standard library's JSON agrees.

Input: one message.
"""

from __future__ import annotations

import json

from harness import ensure, instrumented, main

with instrumented():
    from pyryrelay.pyry.envelope import (
        MAX_DEPTH,
        WIRE_CLOSE_CODES,
        EnvelopeErrorKind,
        FrameError,
        Unwrapped,
        check_frame,
        unwrap,
        wrapping,
    )

BEFORE, AFTER = wrapping("c1")
WHITESPACE = b" \t\r\n"


def check(data: bytes) -> None:
    """Take it for a phone's frame, then for a binary's envelope."""
    accepted = accepts(data)
    ensure(accepted == is_json(data), "a frame is accepted if and only if it is one JSON text, not too deep")
    opened = unwrap(data)
    if is_utf8(data):
        ensure(accepts(data, utf8_checked=True) == accepted, "frames: who has checked UTF-8 gets the same answer")
        ensure(unwrap(data, utf8_checked=True) == opened, "envelopes: who has checked UTF-8 gets the same answer")
    if isinstance(opened, Unwrapped):
        ensure(bool(opened.conn_id), "an unwrapped frame has an addressee")
        ensure(opened.close_code == 0 or opened.close_code in WIRE_CLOSE_CODES, "close codes fit the wire")
        ensure(opened.frame is None or (opened.frame in data and accepts(opened.frame)), "frames come as they were")
    if accepted:
        frame = data.strip(WHITESPACE)
        there_and_back = unwrap(BEFORE + data + AFTER)
        expected = EnvelopeErrorKind.NOTHING_TO_DO if frame == b"null" else Unwrapped("c1", frame, 0)
        ensure(there_and_back == expected, "what is wrapped can be unwrapped")


def accepts(payload: bytes, utf8_checked: bool = False) -> bool:
    """Whether `check_frame` accepts it."""
    try:
        check_frame(payload, utf8_checked)
    except FrameError:
        return False
    return True


def is_utf8(payload: bytes) -> bool:
    """Whether it is UTF-8."""
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def is_json(payload: bytes) -> bool:
    """Whether another parser takes it for one JSON text that nests no deeper than allowed."""
    try:
        text = payload.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_values, parse_constant=_refuse, parse_int=len, parse_float=len)
    except (ValueError, RecursionError):
        return False
    # All arrays of one level at a time, so that the depth of a value is no depth of calls.
    depth, level = 0, [value]
    while arrays := [item for item in level if isinstance(item, list)]:
        depth += 1
        level = [item for array in arrays for item in array]
    return depth <= MAX_DEPTH


def _values(pairs: list[tuple[str, object]]) -> list[object]:
    """Make an array of an object, so that what a repeated field hides still counts."""
    return [value for _, value in pairs]


def _refuse(constant: str) -> None:
    """Refuse NaN and the infinities, which are not JSON."""
    raise ValueError(constant)


if __name__ == "__main__":
    main(check)
