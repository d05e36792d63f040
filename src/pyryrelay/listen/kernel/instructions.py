"""PURE: instructions of classic BPF, and where they find a packet's source (linux/filter.h)."""

from __future__ import annotations

from typing import Final, NamedTuple

WORD: Final = 0xFFFF_FFFF
NET_OFF: Final = -0x10_0000 & WORD
AD_PROTOCOL: Final = -0x1000 & WORD
"""Special offsets of linux/filter.h: the network header, and the packet's protocol."""

ETH_P_IP: Final = 0x0800
ETH_P_IPV6: Final = 0x86DD
V4_SOURCE: Final = 12
V6_SOURCE: Final = 8
"""Offsets of the source address (RFC 791 section 3.1, RFC 8200 section 3)."""

LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP: Final = 0x05  # BPF_JMP | BPF_JA
IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
IF_GREATER: Final = 0x25
IF_AT_LEAST: Final = 0x35
RETURN: Final = 0x06  # BPF_RET | BPF_K
RETURN_A: Final = 0x16
ADD: Final = 0x04  # BPF_ALU | BPF_ADD | BPF_K
ADD_X: Final = 0x0C  # BPF_ALU | BPF_ADD | BPF_X
OR_X: Final = 0x4C
MULTIPLY: Final = 0x24  # BPF_ALU | BPF_MUL | BPF_K
AND: Final = 0x54
SHIFT_LEFT: Final = 0x64
SHIFT_RIGHT: Final = 0x74
MODULO: Final = 0x94
XOR_X: Final = 0xAC
A_TO_X: Final = 0x07  # BPF_MISC | BPF_TAX


class Instruction(NamedTuple):
    """One ``struct sock_filter``: operation, jumps if true and if false (relative, forward), operand."""

    code: int
    jump_true: int
    jump_false: int
    operand: int
