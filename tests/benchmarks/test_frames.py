"""The frames that load generators send, and how they read those that come back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _frames import (
    MASKED,
    MIN_PAYLOAD_BYTES,
    PING,
    TEXT,
    TrafficError,
    check_order,
    envelope,
    frame_bytes,
    frames,
    header,
    masked,
    open_envelope,
    payload,
)

SENT = [[payload(sender, sequence, 64) for sequence in range(3)] for sender in range(2)]


@pytest.mark.parametrize("size_bytes", [MIN_PAYLOAD_BYTES, 64, 1024, 262_000])
def test_payload_has_its_size(size_bytes: int) -> None:
    """A payload is a JSON text of exactly the given size, with its sender and place."""
    data = payload(7, 65535, size_bytes)
    assert len(data) == size_bytes
    assert {"from": 7, "sequence": 65535}.items() <= json.loads(data).items()


def test_payload_needs_room() -> None:
    """A size that is too small is an error."""
    with pytest.raises(ValueError, match="no room"):
        payload(0, 0, 10)


@pytest.mark.parametrize("size_bytes", [0, 125, 126, 65535, 65536])
def test_frames_reads_headers_of_all_lengths(size_bytes: int) -> None:
    """All three forms of a length are read back, and the size of a frame is known beforehand."""
    frame = header(size_bytes) + bytes(size_bytes)
    assert len(frame) == frame_bytes(size_bytes, from_client=False)
    assert [*frames(frame + header(0, PING))] == [(TEXT, bytes(size_bytes)), (PING, b"")]


def test_frames_wants_whole_ones() -> None:
    """A stream that ends inside a frame is an error."""
    with pytest.raises(TrafficError, match="cut"):
        [*frames(header(5) + b"1234")]


@given(data=st.binary(max_size=300))
def test_masked_hides_and_shows(data: bytes) -> None:
    """Unmasking a frame with its own mask gives the payload (RFC 6455 section 5.3)."""
    frame = masked(data)
    head = header(len(data), masked=MASKED)
    mask = frame[len(head) : len(head) + 4]
    assert frame.startswith(head)
    assert len(frame) == frame_bytes(len(data), from_client=True)
    assert bytes(byte ^ mask[place % 4] for place, byte in enumerate(frame[len(head) + 4 :])) == data


def test_envelopes_are_opened() -> None:
    """The frame comes out of its envelope unchanged, whatever the order and spacing of the fields."""
    assert open_envelope(envelope("client-x", SENT[0][0])).frame == SENT[0][0]
    opened = open_envelope(b'{"frame": [1, 2] ,"conn_id": "client-y"}')
    assert (opened.conn_id, opened.frame) == ("client-y", b"[1, 2]")


@pytest.mark.parametrize("data", [b"[]", b'{"conn_id":"x"}'])
def test_what_is_no_envelope(data: bytes) -> None:
    """Anything else than an envelope is an error."""
    with pytest.raises(TrafficError):
        open_envelope(data)


def test_order_is_kept() -> None:
    """Frames of several senders may be mixed, and each sender may repeat its payloads from any place."""
    assert check_order([SENT[0][2], SENT[1][0], SENT[0][0], SENT[0][1]], SENT) == {0, 1}


def test_a_missing_frame_is_noticed() -> None:
    """A gap in a sender's sequence is an error."""
    with pytest.raises(TrafficError, match="missing"):
        check_order([SENT[0][0], SENT[0][2]], SENT)


def test_a_changed_payload_is_noticed() -> None:
    """A change of any byte is an error."""
    with pytest.raises(TrafficError, match="changed"):
        check_order([SENT[0][0].replace(b'"data":"', b'"data":"#')[:-3] + b'"}'], SENT)
