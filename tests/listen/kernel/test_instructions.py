"""The constants of classic BPF, against those of the kernel's headers where they are installed."""

from __future__ import annotations

import struct

from pyryrelay.listen.kernel import instructions
from pyryrelay.listen.kernel.instructions import Instruction

BPF_LD, BPF_ALU, BPF_JMP, BPF_RET, BPF_MISC = 0x00, 0x04, 0x05, 0x06, 0x07
BPF_K, BPF_X, BPF_A = 0x00, 0x08, 0x10


def test_the_codes_are_made_of_the_kernels_parts() -> None:
    """Each operation is a class, a source and an operation of linux/bpf_common.h."""
    assert instructions.LOAD == BPF_LD | 0x20
    assert BPF_JMP | 0x00 == instructions.JUMP
    assert BPF_JMP | 0x10 | BPF_K == instructions.IF_EQUAL
    assert BPF_JMP | 0x20 | BPF_K == instructions.IF_GREATER
    assert BPF_JMP | 0x30 | BPF_K == instructions.IF_AT_LEAST
    assert BPF_RET | BPF_K == instructions.RETURN
    assert BPF_RET | BPF_A == instructions.RETURN_A
    assert BPF_ALU | 0x00 | BPF_X == instructions.ADD_X
    assert BPF_ALU | 0x40 | BPF_X == instructions.OR_X
    assert BPF_ALU | 0x20 | BPF_K == instructions.MULTIPLY
    assert BPF_ALU | 0x50 | BPF_K == instructions.AND
    assert BPF_ALU | 0x60 | BPF_K == instructions.SHIFT_LEFT
    assert BPF_ALU | 0x70 | BPF_K == instructions.SHIFT_RIGHT
    assert BPF_ALU | 0x90 | BPF_K == instructions.MODULO
    assert BPF_MISC | 0x00 == instructions.A_TO_X


def test_an_instruction_fits_the_kernels_structure() -> None:
    """The operands of special offsets are unsigned words."""
    for operand in (instructions.NET_OFF, instructions.AD_PROTOCOL, instructions.WORD):
        assert len(struct.pack("=HBBI", *Instruction(instructions.LOAD, 0, 0, operand))) == 8
