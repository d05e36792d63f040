"""What bodies of entries say."""

from __future__ import annotations

import pytest

from pyryrelay.nostr.replication.entries import AGAIN, ONLY, Told, Wish, body_of, told_in, wish_body, wish_in


@pytest.mark.parametrize("is_ephemeral", [False, True])
def test_a_body_says_what_was_put_in(is_ephemeral: bool) -> None:
    """The event, and whether it is stored."""
    assert told_in(body_of(b"{}", is_ephemeral=is_ephemeral)) == Told(is_ephemeral, b"{}")


@pytest.mark.parametrize("body", [b"", b"{}", b"?{}", b"\0"])
def test_other_bodies_are_left_out(body: bytes) -> None:
    """They come from a later release."""
    assert told_in(body) is None


@pytest.mark.parametrize("what", [AGAIN, ONLY])
def test_a_wish_is_no_event(what: bytes) -> None:
    """It has seconds, and nothing else."""
    body = wish_body(what, 310)
    assert wish_in(body) == Wish(is_answer=what == ONLY, seconds=310)
    assert told_in(body) is None


@pytest.mark.parametrize("what", [AGAIN, ONLY])
def test_a_wish_may_have_an_end(what: bytes) -> None:
    """Two times, then."""
    assert wish_in(wish_body(what, 310, 0)) == Wish(is_answer=what == ONLY, seconds=310, until=0)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<", b"!", b"<-1", b"<1.5", b"<" + b"9" * 13, b"<\xb2", b"e{}", b"12"),
        *(b"<1 ", b"<1 2 3", b"<1  2", b"! 2", b"<1\t2", b"<1 2\n", b"<1 " + b"9" * 13),
    ],
)
def test_what_is_no_wish(body: bytes) -> None:
    """Such as what a later release says."""
    assert wish_in(body) is None
