"""Compressed messages, as an independent implementation writes and reads them."""

from __future__ import annotations

import zlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.deflate import Deflating

from pyryrelay.protocol_options import Deflate
from pyryrelay.websocket.frames.deflate import MIN_BYTES, Inflater, TooLongError, deflater, encode_deflated
from pyryrelay.websocket.frames.negotiation import Compression, negotiate
from pyryrelay.websocket.frames.writer import SLICE_BYTES, encode

MODES: tuple[Deflate, ...] = ("no-context", "context")
TEXT = b'{"kind":1,"content":"the of and to nostr relay the of and to nostr relay the of and to nostr"}' * 2


def agreed(mode: Deflate, offer: str = "permessage-deflate; client_max_window_bits") -> Compression:
    """Return what is agreed upon for an offer."""
    found = negotiate([offer], mode)
    assert found is not None
    return found


# Sending

payloads = st.lists(
    st.one_of(st.binary(max_size=300), st.binary(max_size=9).map(lambda part: part * 100), st.just(TEXT)), max_size=8
)


@given(
    mode=st.sampled_from(MODES),
    offer=st.sampled_from(["permessage-deflate", "permessage-deflate; server_max_window_bits=9"]),
    batches=st.lists(payloads, max_size=4),
    before=st.binary(max_size=9),
    after=st.binary(max_size=9),
)
def test_every_message_is_around_its_payload(
    mode: Deflate, offer: str, batches: list[list[bytes]], before: bytes, after: bytes
) -> None:
    """The other side finds in each frame the prefix, the payload and the suffix, in order, over all batches."""
    compression = agreed(mode, offer)
    peer, deflate = Deflating(compression), deflater(compression)
    for batch in batches:
        slices = encode_deflated(batch, deflate, binary=True, before=before, after=after)
        found = peer.read(b"".join(data for data, _ in slices))
        assert len(found) == sum(frames for _, frames in slices)
        assert [payload for payload, _ in found] == [before + payload + after for payload in batch]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_worth_it_is_compressed(mode: Deflate) -> None:
    """Short payloads are sent as they are; a text that repeats itself becomes a fraction."""
    short, before = b"x" * (MIN_BYTES - 1), b'["EVENT","a",'
    ((data, frames),) = encode_deflated([short, TEXT], deflater(agreed(mode)), before=before)
    assert frames == 2
    assert Deflating(agreed(mode)).read(data) == [(before + short, False), (before + TEXT, True)]
    ((data, _),) = encode_deflated([TEXT], deflater(agreed(mode)), before=before)
    assert data[0] == 0xC1
    assert len(data) < len(TEXT) * 0.8


def test_what_gets_longer_is_sent_as_it_is() -> None:
    """Without a context, a payload that cannot be compressed stays what it is, and so does one with a huge prefix."""
    deflate = deflater(agreed("no-context"))
    noise = bytes(range(256))
    assert encode_deflated([noise], deflate, binary=True) == encode([noise], binary=True)
    assert encode_deflated([TEXT], deflate, before=bytes(65536)) == encode([TEXT], before=bytes(65536))


def test_connections_without_a_context_share_what_compresses() -> None:
    """One object compresses for all of them, and one payload once for all who get it; memory is bounded."""
    first, second = deflater(agreed("no-context")), deflater(agreed("no-context"))
    assert first is second
    assert deflater(agreed("context")) is not deflater(agreed("context"))
    cache = first._cache  # type: ignore[attr-defined]
    cache.clear()
    for subscription in (b"a", b"b"):
        encode_deflated([TEXT], first, before=subscription)
    assert len(cache) == 1
    for number in range(1000):
        encode_deflated([TEXT + bytes([number % 256]) * number], first)
    assert len(cache) <= 64
    encode_deflated([bytes([number]) * 1_000_000 for number in range(4)], first)
    assert sum(map(len, cache)) <= 3_000_000


@pytest.mark.parametrize("mode", MODES)
def test_slices_of_frames(mode: Deflate) -> None:
    """A long batch is cut into slices of whole frames of about the usual size."""
    noise = [Random(number).randbytes(20_000) + bytes(500) for number in range(11)]
    slices = encode_deflated(noise, deflater(agreed(mode)), binary=True)
    assert len(slices) > 1
    assert all(len(data) >= SLICE_BYTES for data, _ in slices[:-1])
    peer = Deflating(agreed(mode))
    assert [payload for data, _ in slices for payload, _ in peer.read(data)] == noise
    assert encode_deflated([], deflater(agreed(mode))) == []


# Receiving


@given(
    mode=st.sampled_from(MODES),
    messages=st.lists(st.one_of(st.binary(max_size=300), st.just(TEXT)), max_size=5),
    step=st.integers(1, 50),
)
def test_messages_are_inflated_in_any_pieces(mode: Deflate, messages: list[bytes], step: int) -> None:
    """A message may be fed in pieces of any size, and the next may refer to it if a context is kept."""
    compression = agreed(mode)
    peer, inflater = Deflating(compression), Inflater(compression)
    for message in messages:
        data = peer.compress(message)
        pieces = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
        found = [inflater.inflate(piece, 1000, is_last=False) for piece in pieces[:-1]]
        found.append(inflater.inflate(pieces[-1], 1000, is_last=True))
        assert b"".join(found) == message


def test_a_bomb_is_inflated_no_further_than_allowed() -> None:
    """A message of 1000 times its size is an error as soon as more than the limit is inflated."""
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = bomb.compress(bytes(50_000_000)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    assert len(data) < 60_000
    with pytest.raises(TooLongError):
        Inflater(agreed("no-context")).inflate(data, 1000, is_last=True)
    data = Deflating(agreed("no-context")).compress(bytes(1000))
    assert Inflater(agreed("no-context")).inflate(data, 1000, is_last=True) == bytes(1000)


@pytest.mark.parametrize("data", [b"\x07", b"\xff" * 20, b"\x00\x01\x00\x00\x00"])
def test_what_is_no_compressed_data(data: bytes) -> None:
    """Blocks of no kind, and lengths that contradict themselves, are errors."""
    with pytest.raises(zlib.error):
        Inflater(agreed("no-context")).inflate(data, 1000, is_last=True)


@pytest.mark.parametrize("mode", MODES)
def test_a_last_block_may_be_marked(mode: Deflate) -> None:
    """RFC 7692 section 7.2.3.4: a message may end with a final block; the next begins anew. Data behind is wrong."""
    inflater = Inflater(agreed(mode))
    final = bytes.fromhex("f348cdc9c90700")
    assert inflater.inflate(final + b"\x00", 1000, is_last=True) == b"Hello"
    assert inflater.inflate(final, 1000, is_last=True) == b"Hello"
    assert inflater.inflate(bytes.fromhex("f248cdc9c90700"), 1000, is_last=True) == b"Hello"
    with pytest.raises(zlib.error, match="behind the last block"):
        inflater.inflate(final + final, 1000, is_last=True)
