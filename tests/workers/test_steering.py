"""Which worker accepts: the same answer in Python, in an interpreter of the kernel's programs, and in the kernel."""

from __future__ import annotations

import random
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.bpf import PROTOCOLS, check, packet, run

from pyryrelay.guard.address.clientip import client_address
from pyryrelay.guard.address.embedded import Nat64Prefix
from pyryrelay.guard.address.keys import covering_prefix
from pyryrelay.guard.address.lists import IPAddress, IPNetwork
from pyryrelay.listen.kernel.bpf import filter_program
from pyryrelay.listen.kernel.reuseport import SO_ATTACH_REUSEPORT_CBPF
from pyryrelay.listen.kernel.steering import SEED_BITS, Steering
from pyryrelay.listen.sockets import attach_program
from pyryrelay.workers.steering import owner_of, steer

NAT64 = tuple(
    Nat64Prefix.parse(text)
    for text in (
        "2001:db8::/32",
        "2001:db9:100::/40",
        "2001:dba:1::/48",
        "2001:dbb:2:300::/56",
        "2001:dbc:3:4::/64",
        "2001:dbd:5:6::/96",
    )
)
WORDS = st.sampled_from([0, 1, 0xFFFF, 0xFFFF_0000, 0x64_FF9B, 0x2002_C000, 0x2001_0DB8, 0x2001_0DB9, 0x2001_0DBC])
V6 = st.one_of(
    st.integers(0, (1 << 128) - 1),
    st.tuples(WORDS, WORDS, WORDS, st.integers(0, 0xFFFF_FFFF)).map(
        lambda words: words[0] << 96 | words[1] << 64 | words[2] << 32 | words[3]
    ),
).map(IPv6Address)
V4 = st.integers(0, 0xFFFF_FFFF).map(IPv4Address)
SEEDS = st.one_of(st.just(0), st.integers(0, (1 << SEED_BITS) - 1))
STEERINGS = st.builds(Steering, st.integers(1, 64), st.integers(1, 48), st.sampled_from([(), NAT64[:1], NAT64]), SEEDS)


ADDRESSES: list[IPAddress] = [
    *(IPv4Address(0xC633_0000 + (number << 8)) for number in range(1_000)),
    *(IPv6Address((0x2A00 << 112) + (number << 80)) for number in range(1_000)),
]
"""Networks in sequence, as one may rent them."""


def kernels_choice(address: IPAddress, steering: Steering, networks: list[IPNetwork]) -> int:
    """Return the index that the program of a group returns; the drop socket's is the number of workers."""
    program = filter_program(networks, steering=steering).verdicts(keep=0, drop=steering.count)
    check(program)
    return run(program, packet(address), PROTOCOLS[address.version])[0]


@given(st.one_of(V4, V6), STEERINGS)
def test_the_program_computes_the_same(address: IPAddress, steering: Steering) -> None:
    """The kernel's program and the function name one worker, for each source."""
    assert kernels_choice(address, steering, []) == steer(address, steering) < steering.count


@given(st.one_of(V4, V6), st.lists(st.one_of(V4, V6), max_size=40), STEERINGS)
def test_the_jailed_go_to_the_drop_socket(address: IPAddress, jailed: list[IPAddress], steering: Steering) -> None:
    """Whatever else the program does, jailed sources are not steered to workers, and all others are."""
    networks: list[IPNetwork] = [
        IPv4Network((int(ip), 32)) if isinstance(ip, IPv4Address) else IPv6Network((int(ip), 128)) for ip in jailed
    ]
    for one in (address, *jailed):
        expected = steering.count if one in jailed else steer(one, steering)
        assert kernels_choice(one, steering, networks) == expected


def test_the_program_is_right_when_it_is_full() -> None:
    """With thousands of jailed sources the blocks that steer are reached by far jumps."""
    source, steering = random.Random(7), Steering(5)
    networks: list[IPNetwork] = [IPv4Network((source.getrandbits(32), 32)) for _ in range(1_500)]
    networks += [IPv6Network((source.getrandbits(64) << 64, 64)) for _ in range(1_500)]
    source.shuffle(networks)
    program = filter_program(networks, steering=steering)
    check(program)
    assert program.covered > 800
    full = program.verdicts(keep=0, drop=5)
    for network in networks[: program.covered]:
        assert run(full, packet(network.network_address), PROTOCOLS[network.version])[0] == 5
    covered = set(networks[: program.covered])
    for _ in range(3_000):
        v4, v6 = IPv4Address(source.getrandbits(32)), IPv6Address(source.getrandbits(128))
        if IPv4Network((int(v4), 32)) not in covered:
            assert run(full, packet(v4), PROTOCOLS[4])[0] == steer(v4, steering)
        assert run(full, packet(v6), PROTOCOLS[6])[0] == steer(v6, steering)


@given(st.one_of(V4, V6), st.integers(0, (1 << 80) - 1), st.integers(1, 48), st.integers(1, 64))
def test_what_the_guard_counts_together_stays_together(address: IPAddress, change: int, bits: int, count: int) -> None:
    """Addresses with one key, or one covering prefix, have one worker, if the prefix is folded to 48 bits or less."""
    steering = Steering(count, bits, NAT64)
    first = client_address(str(address), bits, NAT64)
    low = 8 if address.version == 4 else 80
    neighbour = (
        ip_address(int(address) ^ change & (1 << low) - 1)
        if address.version == 4
        else IPv6Address(int(address) ^ change)
    )
    second = client_address(str(neighbour), bits, NAT64)
    assert first is not None
    assert second is not None
    if first.key == second.key:
        assert steer(address, steering) == steer(neighbour, steering)
    # A private address behind a translator is counted alone, and has no neighbours that matter.
    if first.ip.version == second.ip.version == 4 and covering_prefix(first.key) == covering_prefix(second.key):
        assert steer(address, steering) == steer(neighbour, steering)
    assert steer(first.ip, steering) == steer(address, steering)


@pytest.mark.parametrize("count", [2, 3, 4, 7, 8, 16])
@pytest.mark.parametrize("shift", [8, 12, 16])
def test_prefixes_are_spread_evenly(count: int, shift: int) -> None:
    """Networks in sequence, also those that are multiples of a power of two, fall on all workers alike."""
    v4 = Counter(steer(IPv4Address((number << shift) & 0xFFFF_FFFF), count) for number in range(4_096))
    v6 = Counter(steer(IPv6Address((0x2A00_0000 << 96) + (number << 80 + shift - 8)), count) for number in range(4_096))
    for spread in (v4, v6):
        assert len(spread) == count
        assert max(spread.values()) < 1.25 * 4_096 / count


@pytest.mark.parametrize("count", [2, 3, 8])
def test_networks_that_were_chosen_for_one_worker(count: int) -> None:
    """Those of one seed are as evenly spread as others with another one."""
    source = random.Random(count)
    chosen = [address for address in ADDRESSES if steer(address, count) == 0]
    for _ in range(20):
        steering = Steering(count, seed=source.getrandbits(SEED_BITS))
        for addresses in (chosen, ADDRESSES):
            spread = Counter(steer(address, steering) for address in addresses)
            assert max(spread.values()) < 1.5 * len(addresses) / count


def test_the_seed_is_not_shown() -> None:
    """It is a secret."""
    assert "99" not in repr(Steering(2, seed=99))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1", "192.0.2.254"),
        ("203.0.113.9", "::ffff:203.0.113.77"),
        ("203.0.113.9", "64:ff9b::203.0.113.9"),
        ("203.0.113.9", "2002:cb00:7109::1"),
        ("2a00:1450:4001::1", "2a00:1450:4001:ffff::2"),
    ],
)
def test_examples(one: str, other: str) -> None:
    """Neighbours, and the forms of an IPv4 address in IPv6, have one worker, of whatever number."""
    assert all(steer(ip_address(one), count) == steer(ip_address(other), count) for count in range(1, 65))


def test_owners_are_spread_and_fixed() -> None:
    """A key has the same owner in each process; keys are spread evenly."""
    assert [owner_of(key, 4) for key in ("a", "b", "c", "d")] == [3, 1, 3, 3]
    spread = Counter(owner_of(f"server-{number}", 5) for number in range(10_000))
    assert sorted(spread) == [0, 1, 2, 3, 4]
    assert max(spread.values()) < 2_200
    assert owner_of("\udcff", 3) in range(3)
    chosen = [key for key in map(str, range(5_000)) if owner_of(key, 5) == 0]
    spread = Counter(owner_of(key, 5, 1 << 127) for key in chosen)
    assert max(spread.values()) < 1.5 * len(chosen) / 5


@pytest.fixture
def group() -> Iterator[list[socket.socket]]:
    """Four sockets of one port, and the drop socket, in the order of their listening."""
    with ExitStack() as stack:
        port, sockets = 0, []
        for _ in range(5):
            sock = stack.enter_context(socket.socket(socket.AF_INET6))
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("::", port))
            port = sock.getsockname()[1]
            sock.listen()
            sock.settimeout(30)
            sockets.append(sock)
        yield sockets


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux does this")
def test_the_kernel_does_the_same(group: list[socket.socket]) -> None:
    """On a real dual-stack port, each source reaches the socket that the function names, or the drop socket."""
    jailed = IPv4Network("127.7.0.0/16")
    steering = Steering(4, seed=0x1234_5678_9ABC_DEF0_0FED_CBA9_8765_4321)
    program = filter_program([jailed], steering=steering).verdicts(keep=0, drop=4)
    attach_program(group[0], SO_ATTACH_REUSEPORT_CBPF, program)
    sources = [f"127.{second}.{third}.9" for second in (1, 7, 9) for third in range(20)]
    seen: Counter[int] = Counter()
    for source in [*sources, "::1"]:
        address = ip_address(source)
        with socket.create_connection(
            ("127.0.0.1" if address.version == 4 else "::1", group[0].getsockname()[1]), 30, (source, 0)
        ):
            index = 4 if address in jailed else steer(address, steering)
            accepted, peer = group[index].accept()
            accepted.close()
            assert peer[0].removeprefix("::ffff:") == source
            seen[index] += 1
    assert len(seen) == 5
