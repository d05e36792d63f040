"""The routing envelope: only `FrameError` is raised, and the standard library's JSON parser agrees.

Input: one message.
"""

from __future__ import annotations

import json

from harness import ensure, instrumented, main

with instrumented():
    from pyryrelay.close_codes import ALLOWED_CODES
    from pyryrelay.pyry.envelope import (
        MAX_DEPTH,
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
    """Parse the input as a phone's frame, then as a binary's envelope."""
    accepted = accepts(data)
    ensure(accepted == is_json(data), "a frame is accepted if and only if it is one JSON text that is not too deep")
    opened = unwrap(data)
    if is_utf8(data):
        ensure(
            accepts(data, utf8_checked=True) == accepted, "frames: the result is the same if UTF-8 was checked before"
        )
        ensure(
            unwrap(data, utf8_checked=True) == opened, "envelopes: the result is the same if UTF-8 was checked before"
        )
    if isinstance(opened, Unwrapped):
        ensure(bool(opened.conn_id), "an unwrapped frame has a recipient")
        ensure(opened.close_code == 0 or opened.close_code in ALLOWED_CODES, "close codes may be sent")
        ensure(opened.frame is None or (opened.frame in data and accepts(opened.frame)), "frames are not altered")
    if accepted:
        frame = data.strip(WHITESPACE)
        unwrapped = unwrap(BEFORE + data + AFTER)
        expected = EnvelopeErrorKind.NOTHING_TO_DO if frame == b"null" else Unwrapped("c1", frame, 0)
        ensure(unwrapped == expected, "a wrapped frame can be unwrapped")


def accepts(payload: bytes, utf8_checked: bool = False) -> bool:
    """Return whether `check_frame` accepts a payload."""
    try:
        check_frame(payload, utf8_checked)
    except FrameError:
        return False
    return True


def is_utf8(payload: bytes) -> bool:
    """Return whether a payload is UTF-8."""
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def is_json(payload: bytes) -> bool:
    """Return whether another parser accepts a payload as one JSON text that is not too deep."""
    try:
        text = payload.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_values, parse_constant=_refuse, parse_int=len, parse_float=len)
    except (ValueError, RecursionError):
        return False
    # One level at a time, so that deep values cause no deep recursion.
    depth, level = 0, [value]
    while arrays := [item for item in level if isinstance(item, list)]:
        depth += 1
        level = [item for array in arrays for item in array]
    return depth <= MAX_DEPTH


def _values(pairs: list[tuple[str, object]]) -> list[object]:
    """Turn an object into an array, so that values of repeated fields are kept."""
    return [value for _, value in pairs]


def _refuse(constant: str) -> None:
    """Refuse NaN and the infinities, which are not JSON."""
    raise ValueError(constant)


if __name__ == "__main__":
    main(check)
