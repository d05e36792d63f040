"""An interpreter of classic BPF that is as strict as the kernel, for the programs of `pyryrelay.listen.kernel.bpf`."""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

from pyryrelay.guard.address.lists import IPAddress
from pyryrelay.listen.kernel.bpf import MAX_INSTRUCTIONS, Program

KEEP: Final = 0xFFFF_FFFF
NET_OFF, AD_PROTOCOL = 0xFFF0_0000, 0xFFFF_F000
PROTOCOLS: Final = {4: 0x0800, 6: 0x86DD}
ARITHMETIC: Final[dict[int, Callable[[int, int], int]]] = {
    0x04: operator.add,
    0x24: operator.mul,
    0x54: operator.and_,
    0x64: operator.lshift,
    0x74: operator.rshift,
    0x94: operator.mod,
}
"""Operations with an operand, by their codes."""
WITH_INDEX = {0x0C: operator.add, 0x4C: operator.or_, 0xAC: operator.xor}
"""Operations with the index register."""


def packet(source: IPAddress) -> bytes:
    """Return the network header of a packet."""
    if isinstance(source, IPv4Address):
        return b"\x45" + bytes(11) + source.packed + bytes(4)
    return b"\x60" + bytes(7) + source.packed + bytes(16)


def check(program: Program) -> None:
    """Refuse what the kernel refuses: jumps out of the program, a path that does not return, too many instructions."""
    size = len(program.instructions)
    assert 0 < size <= MAX_INSTRUCTIONS
    assert program.instructions[-1].code in (0x06, 0x16)
    for position, (code, jump_true, jump_false, operand) in enumerate(program.instructions):
        assert code in {0x20, 0x05, 0x15, 0x25, 0x35, 0x06, 0x16, 0x07, *ARITHMETIC, *WITH_INDEX}
        assert 0 <= jump_true <= 255
        assert 0 <= jump_false <= 255
        assert 0 <= operand <= 0xFFFF_FFFF
        farthest = operand if code == 0x05 else max(jump_true, jump_false)
        assert position + 1 + farthest < size or code in (0x06, 0x16)
        assert code != 0x94 or operand, "the kernel refuses a division by zero"
        assert code not in (0x64, 0x74) or operand < 32, "the kernel refuses such a shift"


def run(program: Program, header: bytes, protocol: int) -> tuple[int, int]:
    """Return the verdict and the number of instructions it took."""
    accumulator = index = position = steps = 0
    while True:
        code, jump_true, jump_false, operand = program.instructions[position]
        position += 1
        steps += 1
        if code in (0x06, 0x16):
            return operand if code == 0x06 else accumulator, steps
        if code == 0x20:
            if operand == AD_PROTOCOL:
                accumulator = protocol
                continue
            offset = operand - NET_OFF
            assert 0 <= offset <= len(header) - 4, "the kernel drops a packet for a load beyond its end"
            (accumulator,) = struct.unpack_from("!I", header, offset)
        elif code == 0x05:
            position += operand
        elif code == 0x07:
            index = accumulator
        elif code in ARITHMETIC:
            accumulator = ARITHMETIC[code](accumulator, operand) & 0xFFFF_FFFF
        elif code in WITH_INDEX:
            accumulator = WITH_INDEX[code](accumulator, index) & 0xFFFF_FFFF
        else:
            holds = {0x15: accumulator == operand, 0x25: accumulator > operand, 0x35: accumulator >= operand}[code]
            position += jump_true if holds else jump_false
