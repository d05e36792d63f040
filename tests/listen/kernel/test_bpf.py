"""Filter programs against a reference: the interpreter of `tests.support.bpf`."""

from __future__ import annotations

import random
import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.bpf import KEEP, PROTOCOLS, check, packet, run

from pyryrelay.guard.address.lists import IPAddress, IPNetwork
from pyryrelay.listen.kernel import bpf as bpf_module
from pyryrelay.listen.kernel.bpf import MAX_INSTRUCTIONS, Program, filter_program


def close_to(bits: int) -> st.SearchStrategy[int]:
    """Draw addresses that share words with one another, or are neighbours."""
    word = st.sampled_from([0, 1, 2, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF, 0x2001_0DB8])
    words = st.lists(word, min_size=bits // 32, max_size=bits // 32)
    return words.map(lambda parts: sum(part << 32 * index for index, part in enumerate(parts)))


V4 = st.builds(lambda n, bits: IPv4Network((n, bits), strict=False), close_to(32), st.integers(0, 32))
V6 = st.builds(
    lambda n, bits: IPv6Network((n, bits), strict=False),
    close_to(128),
    st.sampled_from([0, 1, 31, 32, 33, 48, 63, 64, 65, 96, 127, 128]),
)
NETWORKS = st.lists(st.one_of(V4, V6), max_size=30)


def drops(program: Program, source: IPAddress) -> bool:
    """Tell whether a packet from `source` is dropped."""
    verdict, _ = run(program, packet(source), PROTOCOLS[source.version])
    assert verdict in (0, KEEP)
    return verdict == 0


def neighbours(network: IPNetwork) -> list[IPAddress]:
    """Return both ends of a network, and the addresses beside them."""
    ends = int(network.network_address), int(network.broadcast_address)
    numbers = {number for end in ends for number in (end - 1, end, end + 1)}
    kind = IPv4Address if network.version == 4 else IPv6Address
    return [kind(number) for number in numbers if 0 <= number < 1 << network.max_prefixlen]


def holds(networks: list[IPNetwork], address: IPAddress) -> bool:
    """Tell whether a network of the address's family contains it."""
    return any(address in network for network in networks if network.version == address.version)


@given(NETWORKS, st.lists(st.builds(IPv4Address, close_to(32))), st.lists(st.builds(IPv6Address, close_to(128))))
def test_exactly_the_networks_are_dropped(
    networks: list[IPNetwork], some_v4: list[IPv4Address], some_v6: list[IPv6Address]
) -> None:
    """A packet is dropped if its source is in one of the networks, and kept otherwise."""
    program = filter_program(networks)
    check(program)
    assert program.covered == len(networks)
    addresses: list[IPAddress] = [address for network in networks for address in neighbours(network)]
    for address in [*addresses, *some_v4, *some_v6]:
        assert drops(program, address) is holds(networks, address)


@given(NETWORKS, NETWORKS)
def test_exempt_networks_are_never_dropped(networks: list[IPNetwork], jail_exempt: list[IPNetwork]) -> None:
    """A network that overlaps an exempt one is left out as a whole, and the others are covered."""
    covered = [
        network
        for network in networks
        if not any(network.version == other.version and network.overlaps(other) for other in jail_exempt)
    ]
    program = filter_program(networks, jail_exempt)
    check(program)
    assert program == filter_program(covered)
    assert not any(drops(program, address) for network in jail_exempt for address in network_ends(network))


def network_ends(network: IPNetwork) -> tuple[IPAddress, IPAddress]:
    """Return the first and the last address."""
    return network.network_address, network.broadcast_address


@given(NETWORKS, st.integers(16, 80))
def test_no_program_is_too_long(networks: list[IPNetwork], limit: int) -> None:
    """If there is no room for all networks, the first ones are covered."""
    program = filter_program(networks, (), limit)
    check(program)
    assert len(program.instructions) <= limit
    assert program.instructions == filter_program(networks[: program.covered]).instructions


@pytest.mark.parametrize(("bits", "width", "at_least"), [(32, 32, 2_000), (64, 128, 1_000), (128, 128, 500)])
def test_a_full_program_is_legal_and_shallow(bits: int, width: int, at_least: int) -> None:
    """In a full program of random sources all jumps are legal, and every source is found in few steps."""
    source = random.Random(bits)
    kind = IPv4Network if width == 32 else IPv6Network
    networks: list[IPNetwork] = [kind((source.getrandbits(bits) << width - bits, bits)) for _ in range(6_000)]
    program = filter_program(networks)
    check(program)
    assert program.covered >= at_least
    assert len(program.instructions) > MAX_INSTRUCTIONS * 0.95
    for network in networks[: program.covered]:
        verdict, steps = run(program, packet(network.network_address), PROTOCOLS[network.version])
        assert verdict == 0
        # Each halving may take a far jump; each word takes a load and a comparison.
        assert steps <= 2 * log2(program.covered) + 2 * bits // 32 + 8
    for network in networks[program.covered :]:
        assert not drops(program, network.network_address)


def test_one_prefix_shared_by_many_costs_little() -> None:
    """Sources of one provider are told apart by the words in which they differ."""
    shared: list[IPNetwork] = [IPv6Network((0x2001_0DB8 << 96 | number * 3 << 64, 64)) for number in range(3_000)]
    assert filter_program(shared).covered > 1_900


def test_an_empty_program_drops_nothing() -> None:
    """Without networks every packet is kept."""
    program = filter_program([])
    check(program)
    assert program.covered == 0
    assert not drops(program, ip_address("192.0.2.1"))
    assert not drops(program, ip_address("::1"))


def test_other_protocols_are_kept() -> None:
    """A packet that is neither IPv4 nor IPv6 is kept, whatever its bytes."""
    program = filter_program([ip_network("0.0.0.0/0"), ip_network("::/0")])
    check(program)
    assert run(program, packet(IPv4Address("192.0.2.1")), 0x0806)[0] == KEEP


def test_the_bytes_are_those_of_the_kernel() -> None:
    """Each instruction is a ``struct sock_filter``: 16 bits, 8, 8, 32, in the machine's byte order."""
    program = filter_program([ip_network("192.0.2.1")])
    code = bytes(program)
    assert len(code) == 8 * len(program.instructions)
    assert [tuple(item) for item in program.instructions] == list(struct.iter_unpack("=HBBI", code))


def test_a_wrong_estimate_makes_no_program_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """If too many networks were estimated to fit, fewer are covered."""
    monkeypatch.setattr(bpf_module, "_first_that_fit", lambda spans, _: list(spans))
    networks: list[IPNetwork] = [IPv4Network((number * 3, 32)) for number in range(3_000)]
    program = filter_program(networks)
    check(program)
    assert 2_000 < program.covered < 3_000
    assert drops(program, IPv4Address(0))
    assert not drops(program, IPv4Address(2_999 * 3))


@given(NETWORKS, st.one_of(V4, V6))
def test_other_verdicts(networks: list[IPNetwork], source: IPNetwork) -> None:
    """Other verdicts change the return values of the program and nothing else."""
    program = filter_program(networks)
    other = program.verdicts(keep=5, drop=7)
    check(other)
    assert (len(other.instructions), other.covered) == (len(program.instructions), program.covered)
    header, protocol = packet(source.network_address), PROTOCOLS[source.version]
    verdict, steps = run(program, header, protocol)
    assert run(other, header, protocol) == (5 if verdict == KEEP else 7, steps)
