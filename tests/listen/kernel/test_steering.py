"""What is steered together: the constants and parts of programs. Whole programs are in tests/workers/test_steering."""

from __future__ import annotations

import pytest

from pyryrelay.guard.address.embedded import Nat64Prefix
from pyryrelay.listen.kernel.bpf import filter_program
from pyryrelay.listen.kernel.steering import HASH_SHIFT, SEED_BITS, Embedding, Steering


def test_no_program_for_numbers_that_cannot_be_meant() -> None:
    """There is a socket at least, and prefixes between one and 48 bits."""
    for arguments in ((0, 48), (-1, 48), (2, 0), (2, 49)):
        with pytest.raises(ValueError, match="cannot steer"):
            Steering(*arguments)


@pytest.mark.parametrize(
    ("bits", "masks"),
    [(48, (0xFFFF_FFFF, 0xFFFF_0000)), (40, (0xFFFF_FFFF, 0xFF00_0000)), (32, (0xFFFF_FFFF, 0)), (8, (0xFF00_0000, 0))],
)
def test_masks_leave_the_prefix(bits: int, masks: tuple[int, int]) -> None:
    """Two words of an address are masked to the prefix."""
    steering = Steering(4, bits)
    assert (steering.first_mask, steering.second_mask) == masks


@pytest.mark.parametrize("seed", [0, 1, (1 << SEED_BITS) - 1, 0x0123_4567_89AB_CDEF << 64])
def test_factors_are_odd(seed: int) -> None:
    """So no two prefixes lose a bit before the shift. Each part of the seed changes one of them."""
    assert all(factor & 1 and factor < 1 << 32 for factor in Steering(2, seed=seed).factors)
    assert 1 << HASH_SHIFT > 4096
    for part in range(4):
        other = Steering(2, seed=seed ^ 2 << 32 * part).factors
        assert sum(a != b for a, b in zip(other, Steering(2, seed=seed).factors, strict=True)) == 1


@pytest.mark.parametrize("bits", [16, 32, 40, 48, 56, 64, 96])
def test_the_words_of_a_prefix(bits: int) -> None:
    """All bits of the prefix are compared, and no others."""
    first = ((1 << bits) - 1) << 128 - bits
    words = list(Embedding(first, bits).words())
    assert sum(mask.bit_count() for _, mask, _ in words) == bits
    assert all(mask == value for _, mask, value in words)
    assert all(left + mask.bit_length() <= 24 for _, _, mask, left in Embedding(first, bits).parts)


def test_steering_costs_few_instructions() -> None:
    """The blocks at the end of each program are short."""
    plain, steered = filter_program(()), filter_program((), steering=Steering(4))
    assert len(steered.instructions) - len(plain.instructions) < 64
    with_prefix = filter_program((), steering=Steering(4, nat64=(Nat64Prefix.parse("2001:db8:64::/96"),)))
    assert len(with_prefix.instructions) - len(steered.instructions) <= 10
