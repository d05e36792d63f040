"""Groups of sockets in a real kernel, on loopback: who gets which connection, and what stays when a process ends."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest
from tests.end_to_end.harness import until
from tests.end_to_end.network import ip, network_or_skip

from pyryrelay.listen.kernel.bpf import filter_program
from pyryrelay.listen.kernel.drop import KernelDrop
from pyryrelay.listen.kernel.group import SocketGroup
from pyryrelay.listen.kernel.reuseport import QUEUE_LENGTH
from pyryrelay.listen.kernel.steering import Steering
from pyryrelay.workers.steering import steer

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux does this")

LOCALHOST = "127.0.0.1"
STEERING = Steering(4)
DEADLINE_S = 60.0


@pytest.fixture
def group() -> Iterator[SocketGroup]:
    """Four sockets and a drop socket, of which none keeps silent connections back."""
    opened = SocketGroup.open(0, LOCALHOST, 128, 1.0, STEERING, drops=True)
    for sock in opened.sockets:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
    assert opened.drop_socket is not None
    opened.drop_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
    yield opened
    opened.close()


def connect(group: SocketGroup, source: str, patience_s: float = DEADLINE_S) -> socket.socket:
    """Return a connection from a source."""
    return socket.create_connection(group.sockets[0].getsockname(), patience_s, (source, 0))


def accepted(group: SocketGroup) -> list[tuple[int, str]]:
    """Accept all connections that wait, and return their sockets' indexes and their sources."""
    found = []
    for index, sock in enumerate(group.sockets):
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, peer = sock.accept()
                connection.close()
                found.append((index, peer[0]))
    return found


class Arrivals:
    """The connections that have arrived at the sockets of a group: the sockets' indexes, and the sources."""

    def __init__(self, group: SocketGroup) -> None:
        self.group = group
        self.seen: list[tuple[int, str]] = []

    def wait_for(self, count: int) -> list[tuple[int, str]]:
        """Wait until so many have arrived in all, and return them."""

        def all_there() -> bool:
            self.seen += accepted(self.group)
            return len(self.seen) >= count

        until(all_there, f"{count} connections arrive")
        assert len(self.seen) == count
        return self.seen


def test_an_address_reaches_one_socket_only(group: SocketGroup) -> None:
    """Forty addresses with five connections each are spread over four sockets, and none meets a second one."""
    sources = [f"127.1.{number}.7" for number in range(40)]
    with contextlib.ExitStack() as stack:
        for source in sources * 5:
            stack.enter_context(connect(group, source))
        seen = Arrivals(group).wait_for(200)
    assert {(index, source) for index, source in seen} == {(steer(ip_address(one), 4), one) for one in sources}
    spread = Counter(index for index, _ in set(seen))
    assert len(spread) == 4
    assert min(spread.values()) >= 5


def test_jailed_sources_go_to_the_drop_socket(group: SocketGroup) -> None:
    """A flood from a jailed source is not answered once the queue is full, and others are steered as before."""
    kernel = KernelDrop([group])
    kernel.start()
    assert kernel.update([ip_network("127.5.5.5")]) == 1
    with contextlib.ExitStack() as stack:
        for _ in range(QUEUE_LENGTH):
            stack.enter_context(connect(group, "127.5.5.5"))
        with pytest.raises(TimeoutError):
            connect(group, "127.5.5.5", 0.5)
        stack.enter_context(connect(group, "127.5.5.6"))
        arrivals = Arrivals(group)
        assert arrivals.wait_for(1) == [(steer(ip_address("127.5.5.6"), 4), "127.5.5.6")]
        queued = list(group.queued())
        assert {peer[0] for _, peer in queued} == {"127.5.5.5"}
        for sock, _ in queued:
            sock.close()
    kernel.stop()
    connect(group, "127.5.5.5").close()
    assert arrivals.wait_for(2)[1] == (steer(ip_address("127.5.5.5"), 4), "127.5.5.5")


def test_programs_of_groups_and_of_single_sockets(group: SocketGroup) -> None:
    """A relay may have both; each gets a program of its own kind, and steering goes on after a failure."""
    other = SocketGroup.open(0, LOCALHOST, 128, 1.0, Steering(2), drops=True)
    kernel = KernelDrop([group, other])
    kernel.start()
    assert kernel.update([ip_network("127.5.5.5"), ip_network("2001:db8::/64")]) == 2
    assert kernel.update([ip_network("127.5.5.5"), ip_network("2001:db8::/64")]) == 2
    other.close()
    with pytest.raises(OSError, match="dropped at accept"):
        kernel.update([ip_network("127.5.5.6")])
    kernel.remove_failed()
    assert kernel.is_on
    connect(group, "127.5.5.9").close()


def test_indexes_stay_when_a_process_ends(group: SocketGroup) -> None:
    """Connections to a socket that nobody accepts from wait, while copies of it are closed and made again."""
    source = "127.9.9.9"
    index = steer(ip_address(source), 4)
    worker = os.dup(group.sockets[index].fileno())
    with connect(group, source) as early:
        os.close(worker)
        with connect(group, source):
            again = socket.socket(fileno=os.dup(group.sockets[index].fileno()))
            again.settimeout(DEADLINE_S)
            peers = [again.accept(), again.accept()]
            early.settimeout(DEADLINE_S)
            early.sendall(b"still there")
            assert peers[0][0].recv(100) == b"still there"
            again.close()
            for sock, _ in peers:
                sock.close()


def test_no_drop_socket(group: SocketGroup) -> None:
    """Without one the group steers, and programs that name networks drop nothing."""
    plain = SocketGroup.open(0, LOCALHOST, 128, 1.0, Steering(3), drops=False)
    assert not plain.drops
    assert list(plain.queued()) == []
    plain.attach(filter_program([ip_network("127.5.5.5")], steering=Steering(3)))
    connect(plain, "127.5.5.5").close()
    plain.close()
    assert group.drops


def test_a_taken_port_is_refused(group: SocketGroup) -> None:
    """Another relay of the same user cannot join a port, and nothing stays open of what was tried."""
    with pytest.raises(OSError, match="in use"):
        SocketGroup.open(group.sockets[0].getsockname()[1], LOCALHOST, 128, 1.0, STEERING, drops=True)
    assert len({sock.getsockname() for sock in group.sockets}) == 1


@pytest.mark.thorough
def test_ipv6_between_machines() -> None:
    """On a wire, sources of IPv6 are steered by their /48, or by the IPv4 address that they hold."""
    with network_or_skip() as network:
        for clients in ("2001:db8:100::/40", "64:ff9b::/96", "2002::/16"):
            ip("-n", network.client, "-6", "route", "add", "local", clients, "dev", "lo")
            ip("-n", network.server, "-6", "route", "add", clients, "via", "2001:db8::2")
        group = SocketGroup.open(0, "::", 128, 1.0, STEERING, drops=True)
        port = group.sockets[0].getsockname()[1]
        for sock in group.sockets:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
        sources = [f"2001:db8:1{number:02x}:{number:x}::1" for number in range(24)]
        sources += [f"2001:db8:1{number:02x}:ffff::1" for number in range(24)]
        sources += [f"64:ff9b::cb00:{number:02x}07" for number in range(24)]
        sources += [f"2002:cb00:{number:02x}09::1" for number in range(24)]
        arrivals = Arrivals(group)
        for source in sources:
            network.connection(source, port, DEADLINE_S).close()
        seen = arrivals.wait_for(len(sources))
        group.close()
    addresses = [ip_address(source) for source in sources]
    assert {(index, ip_address(source)) for index, source in seen} == {(steer(one, 4), one) for one in addresses}
    assert len({index for index, _ in seen}) == 4
    for number in range(24):
        assert steer(ip_address(sources[48 + number]), 4) == steer(ip_address(f"203.0.{number}.1"), 4)


def test_other_systems_cannot_steer(monkeypatch: pytest.MonkeyPatch) -> None:
    """On other systems the kernel is not asked."""
    monkeypatch.setattr(sys, "platform", "freebsd14")
    with pytest.raises(OSError, match="cannot direct connections") as raised:
        SocketGroup.open(0, LOCALHOST, 128, 1.0, STEERING, drops=True)
    assert raised.value.errno == errno.ENOSYS
