"""PURE: which socket of a SO_REUSEPORT group gets a connection, as constants and as parts of a classic BPF program.

The kernel hashes the covering prefix of the source, a /24 of IPv4 or a /48 of IPv6, so that all connections of an
address, and of its neighbours, reach one socket. IPv6 addresses that hold an IPv4 address (see
`pyryrelay.guard.address.embedded`) are hashed as that address, because the guard counts them together.

`pyryrelay.workers.steering.steer` computes the same in Python. The hash is made of products of 32 bits, whose factors
depend on a secret seed: without it nobody can choose many networks that all reach one socket. Lengths of prefixes are
bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from pyryrelay.guard.address.embedded import Nat64Prefix
from pyryrelay.guard.address.keys import IPV6_PREFIX_BITS
from pyryrelay.listen.kernel.instructions import (
    A_TO_X,
    ADD,
    ADD_X,
    AND,
    LOAD,
    MODULO,
    MULTIPLY,
    NET_OFF,
    OR_X,
    RETURN_A,
    SHIFT_LEFT,
    SHIFT_RIGHT,
    V6_SOURCE,
    WORD,
    XOR_X,
    Instruction,
)

__all__ = [
    "HASH_SHIFT",
    "MIX_SHIFT",
    "SEED_BITS",
    "Embedding",
    "Factors",
    "Part",
    "Steering",
    "index_of_prefix",
    "v4_prefix",
    "v6_prefix",
]

SEED_BITS: Final = 128
MIX_SHIFT: Final = 15
HASH_SHIFT: Final = 16
_CONSTANTS: Final = (0x85EB_CA77, 0x27D4_EB2F, 0x9E37_79B1, 0xC2B2_AE3D)
"""The factors without a seed; all are odd. The third one is the prime next to 2^32 divided by the golden ratio."""


class Factors(NamedTuple):
    """What the hash of a prefix is made of. The prefix is a word: of IPv4 its 24 bits, and of IPv6 the first 32 bits
    times ``v6`` and the next 16. The hash is the upper half of ``p = (prefix + addend) * first; (p ^ p >> 15) * last``.
    """

    v6: int
    addend: int
    first: int
    last: int


_V6_WORDS: Final = 4


class Part(NamedTuple):
    """Some bits of an address: those of a 32-bit word after shifts to the right, a mask, and a shift to the left."""

    word: int
    right: int
    mask: int
    left: int


_PARTS: Final = {
    16: (Part(0, 0, 0xFFFF, 8), Part(1, 24, 0xFF, 0)),
    32: (Part(1, 8, 0xFF_FFFF, 0),),
    40: (Part(1, 0, 0xFF_FFFF, 0),),
    48: (Part(1, 0, 0xFFFF, 8), Part(2, 16, 0xFF, 0)),
    56: (Part(1, 0, 0xFF, 16), Part(2, 8, 0xFFFF, 0)),
    64: (Part(2, 0, 0xFF_FFFF, 0),),
    96: (Part(3, 8, 0xFF_FFFF, 0),),
}
"""Where the first 24 bits of an IPv4 address stand behind an IPv6 prefix of that length (RFC 6052 section 2.2)."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """IPv6 addresses that hold an IPv4 address behind a prefix of ``bits`` bits."""

    first: int
    bits: int

    @property
    def parts(self) -> tuple[Part, ...]:
        """Where the first 24 bits of the IPv4 address are."""
        return _PARTS[self.bits]

    def words(self) -> Iterator[tuple[int, int, int]]:
        """Yield what to compare: the position of a word, a mask, and the value under the mask."""
        for word in range(_V6_WORDS):
            bits = min(32, self.bits - 32 * word)
            if bits > 0:
                mask = WORD << 32 - bits & WORD
                yield word, mask, self.first >> 96 - 32 * word & mask


_KNOWN: Final = (
    Embedding(0xFFFF << 32, 96),
    Embedding(0xFFFF_0000 << 32, 96),
    Embedding(0x64_FF9B << 96, 96),
    Embedding(0x2002 << 112, 16),
)
"""IPv4-mapped addresses, SIIT, the well-known prefix of NAT64, and 6to4."""


@dataclass(frozen=True, slots=True)
class Steering:
    """To how many sockets connections are steered, and how addresses are grouped.

    ``seed`` is a secret number of `SEED_BITS` bits.
    ``v6_bits`` is the length of the IPv6 prefixes that stay together: less than 48 only if clients are folded to less.
    ``nat64`` are the prefixes of an operator's own translators. Raises `ValueError` for numbers that cannot be meant.
    """

    count: int
    v6_bits: int = IPV6_PREFIX_BITS
    nat64: tuple[Nat64Prefix, ...] = ()
    seed: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        """Refuse what has no program."""
        if self.count < 1 or not 1 <= self.v6_bits <= IPV6_PREFIX_BITS:
            raise ValueError(f"cannot steer {self.count!r} ways by /{self.v6_bits!r}")

    @property
    def embeddings(self) -> tuple[Embedding, ...]:
        """The IPv6 prefixes that IPv4 addresses stand behind, in the order in which they are looked for."""
        return (*_KNOWN, *(Embedding(prefix.first, prefix.bits) for prefix in self.nat64))

    @property
    def factors(self) -> Factors:
        """The numbers of the hash, which follow from the seed. Factors are odd, so that no bit of a prefix is lost."""
        return _factors(self.seed)

    @property
    def first_mask(self) -> int:
        """The mask of the first word of an IPv6 address."""
        return WORD << max(0, 32 - self.v6_bits) & WORD

    @property
    def second_mask(self) -> int:
        """The mask of the second word, of which at most 16 bits count; 0 if none does."""
        return WORD << 64 - max(32, self.v6_bits) & WORD


@lru_cache(maxsize=16)
def _factors(seed: int) -> Factors:
    words = (seed >> shift & WORD for shift in (0, 32, 64, 96))
    return Factors(*((constant ^ word) | 1 for constant, word in zip(_CONSTANTS, words, strict=True)))


def index_of_prefix(steering: Steering) -> Iterator[Instruction]:
    """Return an index for the prefix in A."""
    factors = steering.factors
    yield Instruction(ADD, 0, 0, factors.addend)
    yield Instruction(MULTIPLY, 0, 0, factors.first)
    yield Instruction(A_TO_X, 0, 0, 0)
    yield Instruction(SHIFT_RIGHT, 0, 0, MIX_SHIFT)
    yield Instruction(XOR_X, 0, 0, 0)
    yield Instruction(MULTIPLY, 0, 0, factors.last)
    yield Instruction(SHIFT_RIGHT, 0, 0, HASH_SHIFT)
    yield Instruction(MODULO, 0, 0, steering.count)
    yield Instruction(RETURN_A, 0, 0, 0)


def v6_prefix(steering: Steering) -> Iterator[Instruction]:
    """Put the prefix of an IPv6 address together in A."""
    yield Instruction(LOAD, 0, 0, NET_OFF + V6_SOURCE)
    yield Instruction(AND, 0, 0, steering.first_mask)
    yield Instruction(MULTIPLY, 0, 0, steering.factors.v6)
    yield Instruction(A_TO_X, 0, 0, 0)
    yield Instruction(LOAD, 0, 0, NET_OFF + V6_SOURCE + 4)
    yield Instruction(AND, 0, 0, steering.second_mask)
    yield Instruction(SHIFT_RIGHT, 0, 0, 16)
    yield Instruction(ADD_X, 0, 0, 0)


def v4_prefix(parts: Sequence[Part]) -> Iterator[Instruction]:
    """Put bits of an IPv6 address together in A."""
    for number, (word, right, mask, left) in enumerate(parts):
        if number:
            yield Instruction(A_TO_X, 0, 0, 0)
        yield Instruction(LOAD, 0, 0, NET_OFF + V6_SOURCE + 4 * word)
        if right:
            yield Instruction(SHIFT_RIGHT, 0, 0, right)
        yield Instruction(AND, 0, 0, mask)
        if left:
            yield Instruction(SHIFT_LEFT, 0, 0, left)
        if number:
            yield Instruction(OR_X, 0, 0, 0)
