"""A drop socket in a real kernel, on loopback: which sources it gets, and where there can be one.

Loopback has sixteen million source addresses, so one machine can be several clients. A connection that the kernel does
not answer gets `SILENCE_S`. Times are seconds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.harness import until

from pyryrelay.listen.kernel.bpf import MAX_INSTRUCTIONS, Program, filter_program
from pyryrelay.listen.kernel.reuseport import QUEUE_LENGTH, DropSocket

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux does this")

SILENCE_S = 0.5
DEADLINE_S = 60.0
LOCALHOST, LISTED, NEIGHBOUR = "127.0.0.1", "127.0.0.2", "127.0.0.3"
SOURCES = str(Path(__file__).resolve().parents[3] / "src")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that listens on loopback, and does not block."""
    with socket.create_server((LOCALHOST, 0)) as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
def drop_socket(listener: socket.socket) -> Iterator[DropSocket]:
    """The drop socket of the listener."""
    drop_socket = DropSocket(listener)
    yield drop_socket
    drop_socket.close()


@pytest.fixture
def clients() -> Iterator[list[socket.socket]]:
    """The sockets that connected, which are closed at the end."""
    found: list[socket.socket] = []
    yield found
    for sock in found:
        sock.close()


def dropping(*networks: str) -> Program:
    """Return a program for these networks."""
    return filter_program(map(ip_network, networks))


def connects(
    clients: list[socket.socket], listener: socket.socket, source: str, patience_s: float = DEADLINE_S
) -> bool:
    """Connect, and tell whether there was an answer."""
    sock = socket.socket()
    clients.append(sock)
    sock.bind((source, 0))
    sock.settimeout(patience_s)
    try:
        sock.connect((LOCALHOST, listener.getsockname()[1]))
    except TimeoutError:
        return False
    return True


def hosts(connections: Iterator[tuple[Any, Any]]) -> list[str]:
    """Close accepted connections, and return their addresses."""
    found = []
    for sock, address in connections:
        sock.close()
        found.append(address[0].removeprefix("::ffff:"))
    return found


def accepted(listener: socket.socket) -> Iterator[tuple[Any, Any]]:
    """Yield the connections that wait at the listener."""
    with contextlib.suppress(BlockingIOError):
        while True:
            yield listener.accept()


def assert_arrived(look: Callable[[], Iterator[tuple[Any, Any]]], *expected: str) -> None:
    """Check that these connections have arrived, in order; on a busy machine a moment after they connected."""
    seen = hosts(look())

    def all_there() -> bool:
        seen.extend(hosts(look()))
        return len(seen) >= len(expected)

    if len(seen) < len(expected):
        until(all_there, f"{expected} connects")
    assert seen == list(expected)


def test_listed_sources_go_to_the_drop_socket(
    listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]
) -> None:
    """Listed sources go to the drop socket, all others to the listener, and all do once none is listed."""
    assert connects(clients, listener, LISTED)
    assert_arrived(lambda: accepted(listener), LISTED)
    drop_socket.attach(dropping(LISTED))
    for source in (LISTED, NEIGHBOUR, LISTED):
        assert connects(clients, listener, source)
    assert_arrived(lambda: accepted(listener), NEIGHBOUR)
    assert_arrived(drop_socket.queued, LISTED, LISTED)
    drop_socket.attach(dropping())
    assert connects(clients, listener, LISTED)
    assert_arrived(lambda: accepted(listener), LISTED)
    assert_arrived(drop_socket.queued)


def test_a_flood_gets_no_answer(listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]) -> None:
    """The queue takes few connections, and further ones get no answer until it is emptied."""
    drop_socket.attach(dropping(LISTED))
    assert [connects(clients, listener, LISTED) for _ in range(QUEUE_LENGTH)] == [True] * QUEUE_LENGTH
    assert not connects(clients, listener, LISTED, SILENCE_S)
    assert connects(clients, listener, NEIGHBOUR)
    assert_arrived(drop_socket.queued, *[LISTED] * QUEUE_LENGTH)
    assert connects(clients, listener, LISTED)
    assert_arrived(lambda: accepted(listener), NEIGHBOUR)


def test_a_bounded_number_is_taken_at_once(
    listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]
) -> None:
    """Connections that arrive while the queue is emptied are left for the next time."""
    drop_socket.attach(dropping(LISTED))
    assert connects(clients, listener, LISTED)
    taken = 0
    for sock, _ in drop_socket.queued():
        sock.close()
        taken += 1
        assert connects(clients, listener, LISTED)
    assert taken == QUEUE_LENGTH


def test_no_connection_is_lost_between_the_two(listener: socket.socket, clients: list[socket.socket]) -> None:
    """While the drop socket is made connections arrive as always, and each is in one of the queues."""
    drop_sockets = []
    for number in range(30):
        assert connects(clients, listener, NEIGHBOUR)
        if number % 10 == 5:
            drop_sockets.append(DropSocket(listener))
        elif number % 10 == 9:
            drop_sockets.pop().close()
    assert_arrived(lambda: accepted(listener), *[NEIGHBOUR] * 30)


@pytest.mark.parametrize("is_dual", [True, False])
def test_listening_on_ipv6(is_dual: bool, clients: list[socket.socket]) -> None:
    """A dual-stack socket has IPv4 clients too, whose packets are IPv4; a socket for IPv6 only has none."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("no dual-stack sockets here")
    with contextlib.ExitStack() as stack:
        neighbour, port = stack.enter_context(socket.socket()), 0
        if not is_dual:
            # Bound before, because another process may take the same port for IPv4.
            neighbour.bind((LOCALHOST, 0))
            port = neighbour.getsockname()[1]
        listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=is_dual)
        stack.enter_context(listener).setblocking(False)
        drop_socket = DropSocket(listener)
        drop_socket.attach(dropping(LISTED, "::1/128"))
        port = listener.getsockname()[1]
        with socket.create_connection(("::1", port)):
            assert_arrived(drop_socket.queued, "::1")
        if is_dual:
            assert connects(clients, listener, LISTED)
            assert connects(clients, listener, NEIGHBOUR)
            assert_arrived(drop_socket.queued, LISTED)
            assert_arrived(lambda: accepted(listener), NEIGHBOUR)
        else:
            neighbour.listen()
            socket.create_connection((LOCALHOST, port)).close()
        drop_socket.close()


def test_the_longest_program(listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]) -> None:
    """The drop socket takes the longest program that the kernel takes, or reports that there is no room."""
    program = filter_program(ip_network(3 * number) for number in range(1 << 20, (1 << 20) + 3000))
    assert len(program.instructions) > MAX_INSTRUCTIONS * 0.9
    try:
        drop_socket.attach(program)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
    assert connects(clients, listener, NEIGHBOUR)


def test_connections_that_were_reset(
    listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]
) -> None:
    """A connection that was reset in the queue is returned as well, so that it can be counted."""
    drop_socket.attach(dropping(LISTED))
    assert connects(clients, listener, LISTED)
    clients[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    clients[0].close()
    assert_arrived(drop_socket.queued, LISTED)


def test_connections_go_on(listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]) -> None:
    """Connections from before are not affected."""
    assert connects(clients, listener, LISTED)
    sock, _ = listener.accept()
    with sock:
        sock.settimeout(DEADLINE_S)
        drop_socket.attach(dropping(LISTED))
        clients[0].sendall(b"still there")
        assert sock.recv(100) == b"still there"


def test_the_end(listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]) -> None:
    """At the end waiting connections are reset, later ones go to the listener, and a second end does nothing."""
    drop_socket.attach(dropping(LISTED))
    assert connects(clients, listener, LISTED)
    drop_socket.close()
    with pytest.raises(ConnectionResetError):
        clients[0].recv(1)
    assert connects(clients, listener, LISTED)
    assert_arrived(lambda: accepted(listener), LISTED)
    assert list(drop_socket.queued()) == []
    assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    drop_socket.close()


def test_another_one_afterwards(listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]) -> None:
    """A drop socket can be made again after the end."""
    drop_socket.attach(dropping(LISTED))
    drop_socket.close()
    again = DropSocket(listener)
    assert connects(clients, listener, LISTED)
    assert_arrived(lambda: accepted(listener), LISTED)
    again.attach(dropping(LISTED))
    assert connects(clients, listener, LISTED)
    assert_arrived(again.queued, LISTED)
    again.close()


def test_the_port_is_taken_for_others(
    listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]
) -> None:
    """Another server cannot take the port, and one that shares it gets no connection."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            sock.bind(listener.getsockname())
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(listener.getsockname())
        sock.listen()
        drop_socket.attach(dropping(LISTED))
        for _ in range(10):
            assert connects(clients, listener, NEIGHBOUR)
            assert connects(clients, listener, LISTED)
        assert_arrived(lambda: accepted(listener), *[NEIGHBOUR] * 10)
        assert_arrived(drop_socket.queued, *[LISTED] * 10)


def test_a_port_that_is_shared_is_left_alone(listener: socket.socket) -> None:
    """A port that other sockets share gets no drop socket, since they would get no connections."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    with pytest.raises(OSError, match="other sockets share the port"):
        DropSocket(listener)
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_other_systems_have_none(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """On other systems, where the option's number means something else, the kernel is not asked."""
    monkeypatch.setattr(sys, "platform", "freebsd14")
    with pytest.raises(OSError, match="cannot direct connections"):
        DropSocket(listener)
    assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


_AS_NOBODY = """
import os, socket, sys
from ipaddress import ip_network
from pyryrelay.listen.kernel.bpf import filter_program
from pyryrelay.listen.kernel.reuseport import DropSocket

def give_up():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

before, *steps = sys.argv[1:]
if before == "nobody":
    give_up()
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
for step in steps:
    try:
        if step == "open":
            drop_socket = DropSocket(listener)
        elif step == "give-up":
            give_up()
        else:
            drop_socket.attach(filter_program([ip_network("127.0.0.2")]))
        print(step)
    except OSError as error:
        print(step, error.strerror, listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give up being root")
@pytest.mark.parametrize(
    ("steps", "outcome"),
    [
        (["nobody", "open", "put"], ["open", "put"]),
        (["root", "open", "give-up", "put"], ["open", "give-up", "put"]),
        (["root", "give-up", "open"], ["give-up", "open Address already in use 0"]),
    ],
)
def test_privileges(steps: list[str], outcome: list[str]) -> None:
    """No privileges are needed, and the program can be changed after they were dropped."""
    done = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, *steps],
        env={**os.environ, "PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert done.stdout.splitlines() == outcome
