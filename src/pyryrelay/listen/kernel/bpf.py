"""PURE: classic BPF programs that drop packets by source address. `pyryrelay.listen.kernel.drop` attaches them.

`filter_program` turns networks into instructions. A program returns 0 (drop the packet without an answer), or the
largest length (keep it), or the values of `Program.verdicts` instead. It is a binary search over addresses in 32-bit
words: a packet costs about one instruction for each doubling of their number, and at most ten more. An IPv4 address
takes two instructions, a /64 of IPv6 about five.

The program reads the protocol of each packet, because an IPv4 peer of a dual-stack socket sends IPv4 packets. Packets
of other protocols are kept.

With a `Steering` the program chooses a socket of a group: a packet that is kept goes to the blocks at the end, which
return the index of a socket. They take about twenty instructions more.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from pyryrelay.guard.address.lists import IPNetwork
from pyryrelay.listen.kernel.instructions import (
    AD_PROTOCOL,
    AND,
    ETH_P_IP,
    ETH_P_IPV6,
    IF_AT_LEAST,
    IF_EQUAL,
    IF_GREATER,
    JUMP,
    LOAD,
    NET_OFF,
    RETURN,
    SHIFT_RIGHT,
    V4_SOURCE,
    V6_SOURCE,
    WORD,
    Instruction,
)
from pyryrelay.listen.kernel.steering import (
    Embedding,
    Steering,
    index_of_prefix,
    v4_prefix,
    v6_prefix,
)

__all__ = ["MAX_INSTRUCTIONS", "Instruction", "Program", "filter_program"]

MAX_INSTRUCTIONS: Final = 4096
"""Length of the longest program that the kernel accepts (BPF_MAXINSNS)."""

_MAX_JUMP: Final = 255


@dataclass(frozen=True, slots=True)
class Program:
    """A filter that covers the first ``covered`` of the requested networks."""

    instructions: tuple[Instruction, ...]
    covered: int

    def __bytes__(self) -> bytes:
        """Return the instructions as an array of ``struct sock_filter``."""
        return b"".join(struct.pack("=HBBI", *instruction) for instruction in self.instructions)

    def verdicts(self, *, keep: int, drop: int) -> Program:
        """Return the same program with other return values. Indexes of a `Steering` stay."""
        returns = {WORD: Instruction(RETURN, 0, 0, keep), 0: Instruction(RETURN, 0, 0, drop)}
        instructions = (returns[one.operand] if one.code == RETURN else one for one in self.instructions)
        return Program(tuple(instructions), self.covered)


def filter_program(
    networks: Iterable[IPNetwork],
    jail_exempt: Iterable[IPNetwork] = (),
    limit: int = MAX_INSTRUCTIONS,
    steering: Steering | None = None,
) -> Program:
    """Return a program of at most ``limit`` instructions (16 or more) that drops packets from ``networks``.

    Networks are covered in their order, as far as there is room. Those that overlap ``jail_exempt`` are never covered.
    With ``steering`` the program is for a group of sockets, and longer than ``limit`` if that leaves no room for it.
    """
    overlapping = _Overlaps(map(_span, jail_exempt))
    reserve = 0 if steering is None else len(_Assembler(steering).assemble(()))
    spans = _first_that_fit((span for span in map(_span, networks) if span not in overlapping), limit - reserve)
    while True:
        instructions = _Assembler(steering).assemble(spans)
        if len(instructions) <= limit or not spans:
            return Program(instructions, len(spans))
        # There are more far jumps than was estimated.
        spans = spans[: min(len(spans) - 1, len(spans) * limit // len(instructions))]


class _Span(NamedTuple):
    """An address prefix as integers: length of an address in bits, first and last address, length of the prefix."""

    width: int
    first: int
    last: int
    bits: int


def _span(network: IPNetwork) -> _Span:
    width, first, bits = network.max_prefixlen, int(network.network_address), network.prefixlen
    return _Span(width, first, first | (1 << width - bits) - 1, bits)


def _first_that_fit(spans: Iterable[_Span], limit: int) -> list[_Span]:
    """Return as many spans as ``limit`` instructions have room for, with a reserve for far jumps."""
    room = limit - limit // 64 - 8
    seen: set[tuple[int, int]] = set()
    found: list[_Span] = []
    for span in spans:
        is_unique = False
        for known in range(32, max(span.bits, 1) + 32, 32):
            words = known, span.first >> span.width - known | span.width << 128
            if words not in seen:
                seen.add(words)
                # One to compare; one to choose a half, unless the prefix is unique; one to load the next word, or to
                # compare the other end of this one.
                room -= 1 + (not is_unique) + (span.bits != known)
                is_unique = True
        if room < 0:
            break
        found.append(span)
    return found


def _outermost(spans: Iterable[_Span]) -> list[_Span]:
    """Sort prefixes, and leave out those that are inside others."""
    found: list[_Span] = []
    for span in sorted(spans, key=lambda span: (span.width, span.first, span.bits)):
        if not found or found[-1].width != span.width or found[-1].last < span.first:
            found.append(span)
    return found


class _Overlaps:
    """Prefixes, in which a prefix is if it overlaps one of them."""

    def __init__(self, spans: Iterable[_Span]) -> None:
        self._spans = _outermost(spans)
        self._firsts = [(span.width, span.first) for span in self._spans]

    def __contains__(self, span: _Span) -> bool:
        index = bisect_right(self._firsts, (span.width, span.last)) - 1
        return index >= 0 and self._spans[index].width == span.width and self._spans[index].last >= span.first


class _Item(NamedTuple):
    """A range of a word: drop, or search the next word for the prefixes ``deeper``."""

    low: int
    high: int
    deeper: list[_Span] | None


def _items(spans: Sequence[_Span], word: int) -> list[_Item]:
    """Group sorted prefixes, which have all words before ``word`` in common, by their value of ``word``."""
    items: list[_Item] = []
    for span in spans:
        below = span.width - 32 * (word + 1)
        low, high = span.first >> below & WORD, span.last >> below & WORD
        last = items[-1] if items else None
        if span.bits > 32 * (word + 1):
            if last is not None and last.deeper is not None and last.low == low:
                last.deeper.append(span)
            else:
                items.append(_Item(low, low, [span]))
        elif last is not None and last.deeper is None and last.high + 1 == low:
            items[-1] = _Item(last.low, high, None)
        else:
            items.append(_Item(low, high, None))
    return items


_KEEP: Final = -1
_DROP: Final = -2
_STEER_V4: Final = -3
_STEER_V6: Final = -4
"""Jump targets that stand for a verdict; other targets are positions."""


class _Assembler:
    """Write a program from its end to its beginning, so that every target is known when a jump is written.

    A conditional jump reaches 255 instructions. A farther target is reached through an unconditional jump, and a
    verdict through another return instruction. Positions count from the end.
    """

    def __init__(self, steering: Steering | None = None) -> None:
        self._reversed: list[Instruction] = []
        self._verdicts: dict[int, int] = {}
        self._blocks: dict[int, int] = {}
        """Where the blocks of the steering begin, which have no second copy."""
        self._kept_v4 = self._kept_v6 = _KEEP
        if steering is not None:
            self._steer(steering)

    def assemble(self, spans: Iterable[_Span]) -> tuple[Instruction, ...]:
        outermost = _outermost(spans)
        v6 = self._search([span for span in outermost if span.width == 128], 0, V6_SOURCE, self._kept_v6)
        v4 = self._search([span for span in outermost if span.width == 32], 0, V4_SOURCE, self._kept_v4)
        self._branch(IF_EQUAL, ETH_P_IP, v4, self._branch(IF_EQUAL, ETH_P_IPV6, v6, _KEEP))
        self._write(LOAD, 0, 0, AD_PROTOCOL)
        return tuple(reversed(self._reversed))

    def _search(self, spans: Sequence[_Span], word: int, source: int, kept: int) -> int:
        """Load a word of the address at ``source``, and search it; go to ``kept`` if it is in no span."""
        if not spans:
            return kept
        self._bisect(_items(spans, word), word, source, kept)
        return self._write(LOAD, 0, 0, NET_OFF + source + 4 * word)

    def _bisect(self, items: Sequence[_Item], word: int, source: int, kept: int) -> int:
        if len(items) == 1:
            return self._compare(items[0], word, source, kept)
        middle = len(items) // 2
        upper = self._bisect(items[middle:], word, source, kept)
        lower = self._bisect(items[:middle], word, source, kept)
        return self._branch(IF_AT_LEAST, items[middle].low, upper, lower)

    def _compare(self, item: _Item, word: int, source: int, kept: int) -> int:
        target = _DROP if item.deeper is None else self._search(item.deeper, word + 1, source, kept)
        if item.low == item.high:
            return self._branch(IF_EQUAL, item.low, target, kept)
        return self._branch(IF_AT_LEAST, item.low, self._branch(IF_GREATER, item.high, kept, target), kept)

    # Steering

    def _steer(self, steering: Steering) -> None:
        """Write the blocks that return the index of a socket."""
        hashed = self._write_all(*index_of_prefix(steering))
        v6 = self._write_all(*v6_prefix(steering), _jump(len(self._reversed), hashed))
        for embedding in reversed(steering.embeddings):
            v6 = self._embedded(embedding, hashed, v6)
        load = Instruction(LOAD, 0, 0, NET_OFF + V4_SOURCE)
        shift = Instruction(SHIFT_RIGHT, 0, 0, 8)
        v4 = self._write_all(load, shift, _jump(len(self._reversed), hashed))
        self._blocks = {_STEER_V4: v4, _STEER_V6: v6}
        self._kept_v4, self._kept_v6 = _STEER_V4, _STEER_V6

    def _embedded(self, embedding: Embedding, found: int, otherwise: int) -> int:
        """Go to ``found`` with the first 24 bits of an IPv4 address, if an IPv6 address holds one behind a prefix."""
        target = self._write_all(*v4_prefix(embedding.parts), _jump(len(self._reversed), found))
        for word, mask, value in reversed(list(embedding.words())):
            self._branch(IF_EQUAL, value, target, otherwise)
            if mask != WORD:
                self._write(AND, 0, 0, mask)
            target = self._write(LOAD, 0, 0, NET_OFF + V6_SOURCE + 4 * word)
        return target

    def _write_all(self, *instructions: Instruction) -> int:
        """Write instructions that follow each other, and return the position of the first one."""
        for instruction in reversed(instructions):
            self._write(*instruction)
        return len(self._reversed) - 1

    def _branch(self, code: int, operand: int, if_true: int, if_false: int) -> int:
        if_true, if_false = self._reachable(if_true), self._reachable(if_false)
        here = len(self._reversed) - 1
        return self._write(code, here - if_true, here - if_false, operand)

    def _reachable(self, target: int) -> int:
        """Return a position that leads to ``target`` and is in reach of the next two positions."""
        here = len(self._reversed)
        position = self._verdicts.get(target, self._blocks.get(target)) if target < 0 else target
        if position is not None and here - position <= _MAX_JUMP:
            return position
        if position is not None and target >= 0:
            return self._write(JUMP, 0, 0, here - position - 1)
        if target in self._blocks:
            # The jump that is written here is in reach for some time.
            self._verdicts[target] = self._write(JUMP, 0, 0, here - self._blocks[target] - 1)
        else:
            self._verdicts[target] = self._write(RETURN, 0, 0, WORD if target == _KEEP else 0)
        return here

    def _write(self, code: int, jump_true: int, jump_false: int, operand: int) -> int:
        self._reversed.append(Instruction(code, jump_true, jump_false, operand))
        return len(self._reversed) - 1


def _jump(here: int, target: int) -> Instruction:
    """Return a jump at the position ``here``, counted from the end."""
    return Instruction(JUMP, 0, 0, here - target - 1)
