"""The tools of these tests follow the standards, independently of the relay."""

from __future__ import annotations

import subprocess
import sys

from tests.end_to_end.harness import Relay, asynchronous
from tests.end_to_end.peers import fresh_id
from tests.end_to_end.raw import BINARY, PING, SAMPLE_ACCEPT, SAMPLE_KEY, TEXT, frame, masked, raw_peer
from websockets.frames import Frame, Opcode
from websockets.utils import accept_key


def test_client_library_is_not_ours() -> None:
    """`websockets` imports neither Twisted nor Autobahn nor the relay."""
    script = "import sys, websockets.asyncio.client; print([n for n in sys.modules if n.split('.')[0] in sys.argv])"
    done = subprocess.run(
        [sys.executable, "-c", script, "twisted", "autobahn", "txaio", "pyryrelay"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_accept_key_of_the_rfc() -> None:
    """The library computes the accept value of RFC 6455 section 1.3."""
    assert accept_key(SAMPLE_KEY) == SAMPLE_ACCEPT


def test_frames_of_the_rfc() -> None:
    """The raw frame builder makes the examples of RFC 6455 section 5.7."""
    assert frame(TEXT, b"Hello", mask=False) == bytes.fromhex("810548656c6c6f")
    assert frame(TEXT, b"Hello") == bytes.fromhex("818537fa213d7f9f4d5158")
    assert frame(TEXT, b"Hel", fin=False, mask=False) == bytes.fromhex("010348656c")
    assert frame(PING, b"Hello", mask=False) == bytes.fromhex("890548656c6c6f")
    assert frame(BINARY, bytes(256), mask=False)[:4] == bytes.fromhex("827e0100")
    assert frame(BINARY, bytes(65536), mask=False)[:10] == bytes.fromhex("827f0000000000010000")


def test_frames_of_the_library() -> None:
    """Both frame builders make the same unmasked frames."""
    for payload in (b"", b"x" * 125, b"x" * 126, b"x" * 65536):
        assert Frame(Opcode.TEXT, payload).serialize(mask=False) == frame(TEXT, payload, mask=False)


def test_mask_is_an_involution() -> None:
    """Masking twice gives the payload again, zeros and odd lengths included."""
    for payload in (b"", b"\0" * 7, b"Hello", bytes(range(256))):
        assert masked(masked(payload)) == payload


@asynchronous
async def test_handshake_of_the_rfc(relay: Relay) -> None:
    """The relay answers the sample key of RFC 6455 section 1.3 with the accept value given there."""
    async with raw_peer(relay, fresh_id(), "/v1/server"):
        assert relay.metrics()["pyrycode_relay_connected_binaries"] >= 1
