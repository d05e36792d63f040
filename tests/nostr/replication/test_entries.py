"""What bodies of entries say."""

from __future__ import annotations

import pytest

from pyryrelay.nostr.replication.entries import Told, body_of, told_in


@pytest.mark.parametrize("is_ephemeral", [False, True])
def test_a_body_says_what_was_put_in(is_ephemeral: bool) -> None:
    """The event, and whether it is stored."""
    assert told_in(body_of(b"{}", is_ephemeral=is_ephemeral)) == Told(is_ephemeral, b"{}")


@pytest.mark.parametrize("body", [b"", b"{}", b"?{}", b"\0"])
def test_other_bodies_are_left_out(body: bytes) -> None:
    """They come from a later release."""
    assert told_in(body) is None
