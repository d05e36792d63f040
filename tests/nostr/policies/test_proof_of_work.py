"""Proof of work: difficulty, committed targets, kinds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nostr_policies import event, verdict

from pyryrelay.nostr.policies.proof_of_work import difficulty, min_pow


@given(st.integers(0, 2**256 - 1))
def test_difficulty_counts_leading_zero_bits(number: int) -> None:
    """It is what counting the bits one by one gives."""
    bits = f"{number:0256b}"
    assert difficulty(f"{number:064x}") == len(bits) - len(bits.lstrip("0"))


def test_the_example_of_the_nip() -> None:
    """NIP-13 counts 36 bits for this id."""
    assert difficulty("000000000e9d97a1ab09fc381030b346cdd7a142ad57e6df0b46dc9bef6c7e2d") == 36


@pytest.mark.parametrize(
    ("nonce", "expected"),
    [
        (None, None),
        (["nonce", "1"], None),
        (["nonce", "1", "16"], None),
        (["nonce", "1", "20"], None),
        (["nonce", "1", "15"], "pow: committed target 15 is less than 16"),
        (["nonce", "1", "-1"], "pow: committed target -1 is less than 16"),
        (["nonce", "1", "many"], None),
        (["nonce", "1", "9" * 5000], None),
    ],
)
def test_committed_target(nonce: list[str] | None, expected: str | None) -> None:
    """Who aims lower and is lucky is refused; without an integer nothing is committed."""
    one = event(id="0000" + "8" * 60, tags=[] if nonce is None else [nonce, ["nonce", "1", "1"]])
    assert verdict(min_pow(16), one) == expected


def test_too_little_work() -> None:
    """The bits count first."""
    one = event(id="1" + "f" * 63, tags=[["nonce", "1", "3"]])
    assert verdict(min_pow(4), one) == "pow: difficulty 3 is less than 4"


def test_kinds_have_their_own() -> None:
    """A difficulty for a kind replaces the general one, in both directions."""
    policy = min_pow(4, {7: 0, 1: 8})
    easy = "0" + "f" * 63
    assert verdict(policy, event(7)) is None
    assert verdict(policy, event(2, id=easy)) is None
    assert verdict(policy, event(1, id=easy)) == "pow: difficulty 4 is less than 8"
