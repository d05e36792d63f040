"""Sealed entries between hosts: only what a member has sealed is opened, as it was, and whatever bodies say is bounded.

Input: two bytes that choose where a sealed entry is damaged, and a body, which is also tried as an entry.
"""

from __future__ import annotations

from harness import ensure, instrumented, main

with instrumented():
    from pyryrelay.cluster.broadcast.seals import OVERHEAD_BYTES, Seals
    from pyryrelay.nostr.replication.entries import body_of, told_in, wish_body, wish_in

KEY, STREAM, SENT_AT = b"0123456789abcdef" * 2, b"relay:told:events", 1_790_000_000.0
ONE, OTHER, STRANGER = Seals(KEY), Seals(KEY), Seals(b"f" * 32)


def check(data: bytes) -> None:
    """Seal a body, damage it, and read what it says."""
    place, body = int.from_bytes(data[:2], "big"), data[2:]
    ensure(OTHER.opened(body, STREAM) is None, "nobody makes an entry without the secret")
    raw = ONE.sealed(body, SENT_AT, STREAM)
    ensure(len(raw) == len(body) + OVERHEAD_BYTES, "an entry is longer than its body by what is said")
    ensure(OTHER.opened(raw, STREAM) == (SENT_AT, body), "members open what a member has sealed")
    ensure(ONE.is_own(raw) and not OTHER.is_own(raw), "a sender knows its own entries")
    ensure(OTHER.opened(raw, STREAM + b"2") is None, "an entry is good for one stream")
    ensure(STRANGER.opened(raw, STREAM) is None, "an entry is good for one cluster")
    at = place // 8 % len(raw)
    damaged = raw[:at] + bytes([raw[at] ^ 1 << place % 8]) + raw[at + 1 :]
    ensure(OTHER.opened(damaged, STREAM) is None, "no bit of an entry can be changed")
    ensure(OTHER.opened(raw[:at], STREAM) is None, "an entry cannot be cut")
    check_body(body)


def check_body(body: bytes) -> None:
    """Check that a body says one thing at most, which makes the same body."""
    told, wish = told_in(body), wish_in(body)
    ensure(told is None or wish is None, "a body is an event, a wish, or nothing")
    if told is not None:
        ensure(body_of(told.json, is_ephemeral=told.is_ephemeral) == body, "an event makes the same body")
    if wish is not None:
        ensure(0 <= wish.seconds < 10**12, "seconds are bounded")
        ensure(wish_in(wish_body(body[:1], wish.seconds)) == wish, "a wish makes the same wish")


if __name__ == "__main__":
    main(check)
