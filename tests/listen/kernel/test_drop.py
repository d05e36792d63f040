"""The filter in a real kernel, on loopback and between network namespaces, and what happens where it is refused.

Loopback has sixteen million source addresses, so one machine can be several clients. A dropped connection is one that
gets no answer for `SILENCE_S` while its neighbour is accepted. Times are seconds.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

import pytest
from tests.end_to_end.harness import until
from tests.end_to_end.network import built_or_skip, ip

from pyryrelay.guard.address.lists import IPNetwork
from pyryrelay.listen.kernel.bpf import MAX_INSTRUCTIONS, filter_program
from pyryrelay.listen.kernel.drop import (
    MIN_INSTRUCTIONS,
    SO_ATTACH_FILTER,
    SO_DETACH_FILTER,
    KernelDrop,
    KernelDropError,
    detach,
)
from pyryrelay.listen.kernel.reuseport import DropSocket

SILENCE_S = 0.7
DEADLINE_S = 60.0
SO_LOCK_FILTER = 44
DROPPED, NEIGHBOUR = "127.0.0.2", "127.0.0.3"
SOURCES = str(Path(__file__).resolve().parents[3] / "src")


def filters_on(*sockets: object) -> KernelDrop:
    """Return what keeps filters on sockets, real or fake."""
    return KernelDrop((), sockets)  # type: ignore[arg-type]


def refusal_here() -> str | None:
    """Return why filters cannot be attached here, if so."""
    with socket.socket() as sock:
        try:
            filters_on(sock).start()
        except KernelDropError as error:
            return str(error)
    return None


REFUSAL = refusal_here()
permitted = pytest.mark.skipif(REFUSAL is not None, reason=f"no filters on TCP sockets here: {REFUSAL}")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that listens on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(DEADLINE_S)
        yield sock


def is_dropped(listener: socket.socket, source: str) -> bool:
    """Tell whether a connection from an address of loopback is not established."""
    return not connects(listener, source, SILENCE_S)


def connects(listener: socket.socket, source: str, patience_s: float = DEADLINE_S) -> bool:
    """Tell whether a connection from an address of loopback is established."""
    with socket.socket() as client:
        client.bind((source, 0))
        client.settimeout(patience_s)
        try:
            client.connect(listener.getsockname())
        except TimeoutError:
            return False
        listener.accept()[0].close()
        return True


@permitted
def test_a_dropped_source_gets_no_answer_and_its_neighbour_does(listener: socket.socket) -> None:
    """Only listed addresses are dropped, for as long as they are listed."""
    drop = filters_on(listener)
    drop.start()
    assert connects(listener, DROPPED)
    assert drop.update([ip_network(DROPPED)]) == 1
    assert is_dropped(listener, DROPPED)
    assert connects(listener, NEIGHBOUR)
    assert drop.update([]) == 0
    assert connects(listener, DROPPED)


@permitted
def test_an_ipv4_peer_of_a_dual_stack_listener_is_dropped() -> None:
    """Packets of an IPv4 peer are IPv4, though the socket is IPv6."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("no dual-stack sockets here")
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as sock:
        port = sock.getsockname()[1]
        filters_on(sock).update([ip_network(DROPPED), ip_network("2001:db8::/64")])
        for source, expected in ((DROPPED, False), (NEIGHBOUR, True)):
            with socket.socket() as client:
                client.bind((source, 0))
                client.settimeout(DEADLINE_S if expected else SILENCE_S)
                assert (client.connect_ex(("127.0.0.1", port)) == 0) is expected


@permitted
def test_earlier_connections_go_on(listener: socket.socket) -> None:
    """An accepted socket keeps its filter, whatever the listener gets later."""
    drop = filters_on(listener)
    drop.start()
    with socket.socket() as client:
        client.bind((DROPPED, 0))
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            drop.update([ip_network(DROPPED)])
            assert is_dropped(listener, DROPPED)
            accepted.settimeout(DEADLINE_S)
            for _ in range(3):
                client.sendall(b"still there")
                assert accepted.recv(100) == b"still there"


@permitted
def test_accepted_sockets_inherit_a_filter_that_can_be_taken_off(listener: socket.socket) -> None:
    """The inherited filter, which costs memory and time, can be removed; the listener keeps its own."""
    drop = filters_on(listener)
    drop.update([ip_network(DROPPED)])
    with socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert detach(accepted)
            assert not detach(accepted)
    assert is_dropped(listener, DROPPED)


@permitted
def test_stopping_removes_the_filter(listener: socket.socket) -> None:
    """After the stop a socket that others go on using has no filter."""
    drop = filters_on(listener)
    drop.update([ip_network(DROPPED)])
    drop.stop()
    assert not detach(listener)
    assert connects(listener, DROPPED)


@permitted
def test_exempt_addresses_are_never_dropped(listener: socket.socket) -> None:
    """A jailed network around an exempt address is not dropped in the kernel."""
    drop = filters_on(listener)
    drop.set_exempt([ip_network("127.0.0.0/8")])
    assert drop.update([ip_network(DROPPED), ip_network("192.0.2.1")]) == 1
    assert connects(listener, DROPPED)


@permitted
@pytest.mark.parametrize("kind", [IPv4Network, IPv6Network])
def test_a_full_filter_is_replaced_by_another(
    listener: socket.socket, kind: type[IPv4Network] | type[IPv6Network]
) -> None:
    """The kernel accepts the longest programs, or fewer networks are covered if it has no room."""
    shift = 0 if kind is IPv4Network else 64
    bits = 32 if kind is IPv4Network else 64
    drop = filters_on(listener)
    for first in (1 << 24, 1 << 25):
        networks: list[IPNetwork] = [kind(((first + 3 * number) << shift, bits)) for number in range(3_000)]
        assert drop.update(networks) >= MIN_INSTRUCTIONS // 4
    assert connects(listener, NEIGHBOUR)


@permitted
def test_a_locked_filter_is_reported(listener: socket.socket) -> None:
    """Where the kernel does not permit a filter, the error says so in one line, and what happens instead."""
    listener.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)
    with pytest.raises(KernelDropError, match="dropped at accept, not in the kernel: the process may not") as caught:
        filters_on(listener).start()
    assert caught.value.errno == errno.EPERM
    assert "\n" not in str(caught.value)


_WITHOUT_PRIVILEGES = """
import os, socket
from ipaddress import ip_network
from pyryrelay.listen.kernel.drop import KernelDrop, KernelDropError, detach
listener = socket.create_server(("127.0.0.1", 0))
drop = KernelDrop([], [listener])
drop.update([ip_network("127.0.0.2")])
os.setgroups([])
os.setuid(65534)
try:
    drop.update([ip_network("127.0.0.3")])
except KernelDropError as error:
    drop.remove_failed()
    print("refused", error.errno, detach(listener))
else:
    print("permitted")
"""


@permitted
@pytest.mark.skipif(os.getuid() != 0, reason="only root can give up being root")
def test_giving_up_privileges_removes_the_filter() -> None:
    """A filter that cannot be replaced without privileges is removed; older kernels permit the replacement."""
    outcome = subprocess.run(
        [sys.executable, "-c", _WITHOUT_PRIVILEGES],
        env={**os.environ, "PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert outcome.stdout.strip() in (f"refused {errno.EPERM} False", "permitted")


class FakeSocket:
    """A socket for which the kernel accepts filters of at most `room` instructions, and one at a time if `sole`."""

    def __init__(self, room: int = MAX_INSTRUCTIONS, *, sole: bool = False, error: int = errno.ENOMEM) -> None:
        self.family = socket.AF_INET
        self.attached: int | None = None
        self._room, self._sole, self._error = room, sole, error
        self.refuses = 0

    def setsockopt(self, level: int, option: int, value: object) -> None:
        """Attach or detach a filter."""
        assert level == socket.SOL_SOCKET
        if option == SO_DETACH_FILTER:
            if self.attached is None:
                raise FileNotFoundError(errno.ENOENT, "none")
            self.attached = None
            return
        assert option == SO_ATTACH_FILTER
        assert isinstance(value, bytes)
        if self.refuses:
            raise OSError(self.refuses, os.strerror(self.refuses))
        size = int.from_bytes(value[:2], sys.byteorder)
        if size > self._room or (self._sole and self.attached is not None):
            raise OSError(self._error, os.strerror(self._error))
        self.attached = size


def many(number: int) -> list[IPNetwork]:
    """Return networks that need a long program."""
    return [IPv4Network((3 * index, 32)) for index in range(number)]


def test_fewer_networks_are_covered_where_there_is_little_room() -> None:
    """All sockets get the same filter, one that fits the smallest, and later ones are no longer than that."""
    sockets = FakeSocket(), FakeSocket(room=600)
    drop = filters_on(*sockets)
    covered = drop.update(many(2_000))
    assert 200 < covered < 300
    assert sockets[0].attached == sockets[1].attached
    assert drop.update(many(2_001)) == covered
    assert drop.update(many(10)) == 10


def test_the_old_filter_makes_room_for_the_new() -> None:
    """If both do not fit at once, there is no filter for a moment instead of a shorter one."""
    sock = FakeSocket(sole=True)
    drop = filters_on(sock)
    drop.update(many(10))
    assert drop.update(many(1_000)) == 1_000


def test_no_room_at_all_is_reported() -> None:
    """A filter that would cover next to nothing is not attached; other sockets keep theirs."""
    sockets = FakeSocket(), FakeSocket(room=3)
    drop = filters_on(*sockets)
    with pytest.raises(KernelDropError, match=r"not in the kernel: the program is too long; .*optmem_max"):
        drop.update(many(1_000))
    drop.remove_failed()
    assert sockets[1].attached is None
    assert drop.is_on
    assert drop.update(many(10)) == 10
    assert sockets[0].attached is not None
    assert sockets[1].attached is None


@pytest.mark.parametrize("count", [0, 3, 40])
def test_a_short_program_for_which_there_is_no_room(count: int) -> None:
    """If even a short program does not fit, the filter is given up."""
    sock = FakeSocket()
    drop = filters_on(sock)
    drop.update(many(2))
    sock.refuses = errno.ENOMEM
    with pytest.raises(KernelDropError, match="optmem_max"):
        drop.update(many(count))
    drop.remove_failed()
    assert (sock.attached, drop.is_on) == (None, False)


def test_what_cannot_be_shortened_is_still_a_program() -> None:
    """The shortest program drops nothing."""
    program = filter_program(many(3), limit=2)
    assert program.covered == 0
    assert program == filter_program(())


def test_one_socket_can_refuse_later() -> None:
    """A socket that refuses later has no filter, and the others go on."""
    sockets = FakeSocket(), FakeSocket()
    drop = filters_on(*sockets)
    drop.update(many(3))
    sockets[0].refuses = errno.EPERM
    with pytest.raises(KernelDropError, match="the process may not filter sockets"):
        drop.update(many(4))
    drop.remove_failed()
    assert sockets[0].attached is None
    assert sockets[1].attached is not None
    assert (drop.is_on, drop.filters_sockets) == (True, True)
    sockets[1].refuses = errno.EPERM
    with pytest.raises(KernelDropError):
        drop.update(many(5))
    assert (drop.is_on, drop.filters_sockets) == (False, False)
    assert drop.update(many(6)) == 6


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (
            errno.EPERM,
            "the process may not filter sockets; give it the capability CAP_NET_ADMIN (in a systemd unit: "
            "AmbientCapabilities=CAP_NET_ADMIN and CapabilityBoundingSet=CAP_NET_ADMIN)",
        ),
        (errno.ENOPROTOOPT, "this system has no socket filters"),
        (errno.EINVAL, os.strerror(errno.EINVAL)),
    ],
)
def test_a_refusal_names_its_cause(error: int, cause: str) -> None:
    """The error says that jailed sources are still dropped at accept, why not in the kernel, and the fix."""
    with pytest.raises(KernelDropError) as caught:
        filters_on(FakeSocket(room=0, error=error)).start()
    assert str(caught.value) == f"jailed sources are dropped at accept, not in the kernel: {cause}"
    assert caught.value.errno == error


def test_other_systems_have_no_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """On other systems, where the options' numbers mean something else, the kernel is not asked."""
    monkeypatch.setattr(sys, "platform", "freebsd14")
    sock = FakeSocket()
    with pytest.raises(KernelDropError, match="this system has no socket filters"):
        filters_on(sock).start()
    assert sock.attached is None


def test_the_same_filter_is_not_attached_twice() -> None:
    """Without a change the kernel is not asked again."""
    sock = FakeSocket()
    drop = filters_on(sock)
    drop.update(many(3))
    sock.attached = -1
    drop.update(many(3))
    assert sock.attached == -1
    drop.update(many(4))
    assert sock.attached > 0


@permitted
def test_a_drop_socket_and_a_filter_do_the_same(listener: socket.socket) -> None:
    """A drop socket and a filter can be used at once, each for its own listener, and end together."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(DEADLINE_S)
        drop = KernelDrop([DropSocket(other)], [listener])
        assert drop.filters_sockets
        assert drop.update([ip_network(DROPPED)]) == 1
        for sock in (listener, other):
            assert connects(sock, NEIGHBOUR)
        assert is_dropped(listener, DROPPED)
        other.setblocking(False)
        with socket.socket() as client:
            client.bind((DROPPED, 0))
            client.connect(other.getsockname())
            with pytest.raises(BlockingIOError):
                other.accept()
        other.settimeout(DEADLINE_S)
        drop.stop()
        for sock in (listener, other):
            assert connects(sock, DROPPED)


def test_nothing_to_keep() -> None:
    """Without sockets nothing is on, and nothing fails."""
    drop = KernelDrop(())
    drop.start()
    assert (drop.is_on, drop.filters_sockets) == (False, False)
    drop.stop()


_SERVER = """
import socket, sys
from ipaddress import ip_network
from pyryrelay.listen.kernel.drop import KernelDrop
listener = socket.create_server(("::", 4410), family=socket.AF_INET6, dualstack_ipv6=True)
print("covered", KernelDrop([], [listener]).update([ip_network(text) for text in sys.argv[1:]]), flush=True)
while True:
    listener.accept()[0].close()
"""
_CLIENT = f"""
import socket, sys
for source, target in zip(sys.argv[1::2], sys.argv[2::2]):
    with socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET) as sock:
        sock.bind((source, 0))
        sock.settimeout({SILENCE_S})
        try:
            sock.connect((target, 4410))
            print("connected", flush=True)
        except TimeoutError:
            print("silence", flush=True)
"""


class Namespaces:
    """Two machines with a link between them."""

    def __init__(self, name: str) -> None:
        self.server, self.client = f"{name}-s", f"{name}-c"

    def build(self) -> None:
        """Make them. Raises `subprocess.CalledProcessError` where that is not permitted."""
        for namespace in (self.server, self.client):
            ip("netns", "add", namespace)
        ip("link", "add", "wire", "netns", self.server, "type", "veth", "peer", "wire", "netns", self.client)
        for namespace, host in ((self.server, 1), (self.client, 2)):
            for network in ("192.0.2.", "2001:db8:0:a::", "2001:db8:0:b::"):
                bits, dad = (24, ()) if "." in network else (64, ("nodad",))
                ip("-n", namespace, "addr", "add", f"{network}{host}/{bits}", "dev", "wire", *dad)
            ip("-n", namespace, "link", "set", "wire", "up")
        ip("-n", self.client, "addr", "add", "192.0.2.3/24", "dev", "wire")

    def remove(self) -> None:
        """Remove all parts of them, however far `build` came."""
        for namespace in (self.server, self.client):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False, timeout=DEADLINE_S)

    def python(self, namespace: str, script: str, *arguments: str) -> subprocess.Popen[str]:
        """Run a script on one of them."""
        return subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-c", script, *arguments],
            env={**os.environ, "PYTHONPATH": SOURCES},
            stdout=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    """Two network namespaces, or a reason why there are none."""
    pair = Namespaces(f"pyryrelay-{os.getpid()}")
    with built_or_skip(pair):
        yield pair


def outcomes(namespaces: Namespaces, jailed: Sequence[str], attempts: Sequence[str]) -> list[str]:
    """Drop some sources on the server, and connect from the client: source, target, source, target."""
    server = namespaces.python(namespaces.server, _SERVER, *jailed)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == f"covered {len(jailed)}\n"
        with namespaces.python(namespaces.client, _CLIENT, *attempts) as client:
            return client.communicate(timeout=DEADLINE_S)[0].split()
    finally:
        server.kill()
        server.communicate()


def is_outcome(namespaces: Namespaces, jailed: Sequence[str], attempts: Sequence[str], expected: Sequence[str]) -> bool:
    """Tell whether jailed sources are dropped, and the others are not."""
    return outcomes(namespaces, jailed, attempts) == expected


@permitted
def test_between_machines(namespaces: Namespaces) -> None:
    """Between machines an IPv4 address and an IPv6 prefix are dropped, and their neighbours are not."""
    v4, v6_a, v6_b = "192.0.2.1", "2001:db8:0:a::1", "2001:db8:0:b::1"
    attempts = ["192.0.2.2", v4, "192.0.2.3", v4, "2001:db8:0:a::2", v6_a, "2001:db8:0:b::2", v6_b]
    # The kernel takes about a second to bring the link up, and passes no packet until then.
    for jailed, expected in (
        (["192.0.2.2/32", "2001:db8:0:a::/64"], ["silence", "connected", "silence", "connected"]),
        (["192.0.2.3/32", "2001:db8:0:b::/64"], ["connected", "silence", "connected", "silence"]),
    ):
        until(functools.partial(is_outcome, namespaces, jailed, attempts, expected), "the kernel drops them alone")
