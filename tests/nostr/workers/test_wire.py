"""Frames and messages between processes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.storage.interface import Retention, RetentionRule
from pyryrelay.nostr.storage.visibility import View
from pyryrelay.nostr.workers.wire import (
    MAX_FRAME_BYTES,
    Answer,
    Call,
    Cancel,
    Counted,
    CountLimits,
    Credit,
    Done,
    FrameBuffer,
    FrameError,
    FromReader,
    FromVerifier,
    FromWriter,
    Health,
    Open,
    Query,
    QueryLimits,
    ReaderConfig,
    Ready,
    Removed,
    Rows,
    Snapshot,
    ToReader,
    ToVerifier,
    ToWriter,
    Verdict,
    Verdicts,
    VerifierConfig,
    Verify,
    Write,
    WriterConfig,
    Written,
    encode,
    frame,
)

FILTER = Filter(ids=("a" * 64,), kinds=(1, 65536), tags=(("e", ("x", "")),), since=0, until=2**53 - 1, limit=0)
QUERY = Query(
    client="192.0.2.1",
    filters=(FILTER, Filter()),
    view=View(frozenset({"a" * 64}), frozenset({4}), 1_700_000_000),
    limits=QueryLimits(max_limit=500, default_limit=100, max_results=None, max_work=500_000),
    timeout_s=30.0,
    count=CountLimits(max_count=1000, hll=True),
)
RETENTION = Retention([RetentionRule(frozenset({1, 7}), 86_400, None)], 1000, None, frozenset({bytes(32)}))
MESSAGES: list[tuple[Any, list[object]]] = [
    (ToWriter, [WriterConfig(database="sqlite:x", is_durable=False, retention=RETENTION)]),
    (ToWriter, [Write(1, [b"{}", b""]), Call(2, "delete", {"ids": [b"\xff"], "forever": True})]),
    (FromWriter, [Ready(7, 3), Written(1, [0, 1], [8, 0], [b"\x01" * 32], 0.5, 2), Written(1, [], [])]),
    (
        FromWriter,
        [Answer(2, [1]), Answer(2, None, "no"), Removed("expired", [b"x"]), Health(False, "full")],
    ),
    (ToReader, [ReaderConfig(database="sqlite:x"), Open(1, 131_072, QUERY), Credit(1, 5), Cancel(1)]),
    (FromReader, [Ready(), Snapshot(1, 2**40), Rows(1, [b"{}"]), Counted(1, 5, True, "00"), Done(1, "more", 9, None)]),
    (ToVerifier, [VerifierConfig(database=None), Verify(1, "ab" * 128)]),
    (FromVerifier, [Ready(), Verdicts(1, bytes([Verdict.GOOD, Verdict.KNOWN]), 0.25)]),
]


@pytest.mark.parametrize(("union", "messages"), MESSAGES)
def test_messages_arrive_as_they_were_sent(union: Any, messages: list[object]) -> None:
    """Every message can be told from the others of its direction, and loses nothing."""
    assert [msgspec.msgpack.decode(encode(message), type=union) for message in messages] == messages


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(0, 2000), max_size=20))
def test_frames_do_not_depend_on_chunks(bodies: list[bytes], cuts: list[int]) -> None:
    """However a stream is cut into chunks, the bodies come out whole and in order."""
    stream = b"".join(map(frame, bodies))
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    buffer = FrameBuffer()
    received = [body for start, end in pairwise(bounds) for body in buffer.feed(stream[start:end])]
    assert received == bodies


def test_half_a_frame_waits() -> None:
    """A frame is returned only when its last byte is there."""
    buffer, whole = FrameBuffer(), frame(b"body")
    assert [buffer.feed(bytes([byte])) for byte in whole] == [[]] * (len(whole) - 1) + [[b"body"]]


def test_a_stream_out_of_step_is_noticed() -> None:
    """A length that no message has is an error, rather than a wait for ever."""
    with pytest.raises(FrameError):
        FrameBuffer().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
