"""The secret by which connections are divided among workers."""

from __future__ import annotations

import pytest

from pyryrelay.listen.kernel.steering import SEED_BITS
from pyryrelay.workers.sockets.seeds import VARIABLE, new_seed


def test_seeds_are_new() -> None:
    """Each relay has its own, as long as it says."""
    found = {new_seed({}) for _ in range(50)}
    assert len(found) == 50
    assert SEED_BITS - 10 < max(found).bit_length() <= SEED_BITS


@pytest.mark.parametrize(("text", "expected"), [("0", 0), ("77", 77)])
def test_a_seed_for_tests(text: str, expected: int) -> None:
    """It may be given."""
    assert new_seed({VARIABLE: text}) == expected


def test_a_seed_that_is_none() -> None:
    """It is ignored."""
    assert new_seed({VARIABLE: "none"}) > 1
