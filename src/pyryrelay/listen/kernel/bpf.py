"""PURE: classic BPF programs that drop packets by source address. `pyryrelay.listen.kernel.drop` attaches them.

`filter_program` turns networks into instructions. A program returns 0 (drop the packet without an answer), or the
largest length (keep it), or the values of `Program.verdicts` instead. It is a binary search over addresses in 32-bit
words: a packet costs about one instruction for each doubling of their number, and at most ten more. An IPv4 address
takes two instructions, a /64 of IPv6 about five.

The program reads the protocol of each packet, because an IPv4 peer of a dual-stack socket sends IPv4 packets. Packets
of other protocols are kept.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from pyryrelay.guard.address.lists import IPNetwork

__all__ = ["MAX_INSTRUCTIONS", "Instruction", "Program", "filter_program"]

MAX_INSTRUCTIONS: Final = 4096
"""Length of the longest program that the kernel accepts (BPF_MAXINSNS)."""

_MAX_JUMP: Final = 255
_WORD: Final = 0xFFFF_FFFF
_NET_OFF: Final = -0x10_0000 & _WORD
_AD_PROTOCOL: Final = -0x1000 & _WORD
"""Special offsets of linux/filter.h: the network header, and the packet's protocol."""

_ETH_P_IP: Final = 0x0800
_ETH_P_IPV6: Final = 0x86DD
_V4_SOURCE: Final = 12
_V6_SOURCE: Final = 8
"""Offsets of the source address (RFC 791 section 3.1, RFC 8200 section 3)."""

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP: Final = 0x05  # BPF_JMP | BPF_JA
_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_IF_GREATER: Final = 0x25
_IF_AT_LEAST: Final = 0x35
_RETURN: Final = 0x06  # BPF_RET | BPF_K


class Instruction(NamedTuple):
    """One ``struct sock_filter``: operation, jumps if true and if false (relative, forward), operand."""

    code: int
    jump_true: int
    jump_false: int
    operand: int


@dataclass(frozen=True, slots=True)
class Program:
    """A filter that covers the first ``covered`` of the requested networks."""

    instructions: tuple[Instruction, ...]
    covered: int

    def __bytes__(self) -> bytes:
        """Return the instructions as an array of ``struct sock_filter``."""
        return b"".join(struct.pack("=HBBI", *instruction) for instruction in self.instructions)

    def verdicts(self, *, keep: int, drop: int) -> Program:
        """Return the same program with other return values."""
        returns = {_WORD: Instruction(_RETURN, 0, 0, keep), 0: Instruction(_RETURN, 0, 0, drop)}
        instructions = (returns[one.operand] if one.code == _RETURN else one for one in self.instructions)
        return Program(tuple(instructions), self.covered)


def filter_program(
    networks: Iterable[IPNetwork], jail_exempt: Iterable[IPNetwork] = (), limit: int = MAX_INSTRUCTIONS
) -> Program:
    """Return a program of at most ``limit`` instructions (16 or more) that drops packets from ``networks``.

    Networks are covered in their order, as far as there is room. Those that overlap ``jail_exempt`` are never covered.
    """
    overlapping = _Overlaps(map(_span, jail_exempt))
    spans = _first_that_fit((span for span in map(_span, networks) if span not in overlapping), limit)
    while True:
        instructions = _Assembler().assemble(spans)
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
        low, high = span.first >> below & _WORD, span.last >> below & _WORD
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
"""Jump targets that stand for a verdict; other targets are positions."""


class _Assembler:
    """Write a program from its end to its beginning, so that every target is known when a jump is written.

    A conditional jump reaches 255 instructions. A farther target is reached through an unconditional jump, and a
    verdict through another return instruction. Positions count from the end.
    """

    def __init__(self) -> None:
        self._reversed: list[Instruction] = []
        self._verdicts: dict[int, int] = {}

    def assemble(self, spans: Iterable[_Span]) -> tuple[Instruction, ...]:
        outermost = _outermost(spans)
        v6 = self._search([span for span in outermost if span.width == 128], 0, _V6_SOURCE)
        v4 = self._search([span for span in outermost if span.width == 32], 0, _V4_SOURCE)
        self._branch(_IF_EQUAL, _ETH_P_IP, v4, self._branch(_IF_EQUAL, _ETH_P_IPV6, v6, _KEEP))
        self._write(_LOAD, 0, 0, _AD_PROTOCOL)
        return tuple(reversed(self._reversed))

    def _search(self, spans: Sequence[_Span], word: int, source: int) -> int:
        """Load a word of the address at ``source``, and search it."""
        if not spans:
            return _KEEP
        self._bisect(_items(spans, word), word, source)
        return self._write(_LOAD, 0, 0, _NET_OFF + source + 4 * word)

    def _bisect(self, items: Sequence[_Item], word: int, source: int) -> int:
        if len(items) == 1:
            return self._compare(items[0], word, source)
        middle = len(items) // 2
        upper = self._bisect(items[middle:], word, source)
        lower = self._bisect(items[:middle], word, source)
        return self._branch(_IF_AT_LEAST, items[middle].low, upper, lower)

    def _compare(self, item: _Item, word: int, source: int) -> int:
        target = _DROP if item.deeper is None else self._search(item.deeper, word + 1, source)
        if item.low == item.high:
            return self._branch(_IF_EQUAL, item.low, target, _KEEP)
        return self._branch(_IF_AT_LEAST, item.low, self._branch(_IF_GREATER, item.high, _KEEP, target), _KEEP)

    def _branch(self, code: int, operand: int, if_true: int, if_false: int) -> int:
        if_true, if_false = self._reachable(if_true), self._reachable(if_false)
        here = len(self._reversed) - 1
        return self._write(code, here - if_true, here - if_false, operand)

    def _reachable(self, target: int) -> int:
        """Return a position that leads to ``target`` and is in reach of the next two positions."""
        here = len(self._reversed)
        position = self._verdicts.get(target) if target < 0 else target
        if position is not None and here - position <= _MAX_JUMP:
            return position
        if position is not None and target >= 0:
            return self._write(_JUMP, 0, 0, here - position - 1)
        self._verdicts[target] = self._write(_RETURN, 0, 0, _WORD if target == _KEEP else 0)
        return here

    def _write(self, code: int, jump_true: int, jump_false: int, operand: int) -> int:
        self._reversed.append(Instruction(code, jump_true, jump_false, operand))
        return len(self._reversed) - 1
