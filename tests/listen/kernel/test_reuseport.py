"""A decoy in a real kernel, on loopback: who is drawn to it, who is not, and who may have one.

Loopback has sixteen million source addresses, so one machine is several clients. A connection that the kernel does not
answer is given `SILENCE_S`. Times are seconds.
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
LOCALHOST, DRAWN, NEIGHBOUR = "127.0.0.1", "127.0.0.2", "127.0.0.3"
SOURCES = str(Path(__file__).resolve().parents[3] / "src")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that listens on loopback, and does not wait for anybody."""
    with socket.create_server((LOCALHOST, 0)) as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
def drop_socket(listener: socket.socket) -> Iterator[DropSocket]:
    """The one beside it."""
    drop_socket = DropSocket(listener)
    yield drop_socket
    drop_socket.close()


@pytest.fixture
def clients() -> Iterator[list[socket.socket]]:
    """Who connected; they stay to the end."""
    found: list[socket.socket] = []
    yield found
    for sock in found:
        sock.close()


def dropping(*networks: str) -> Program:
    """The program that names these."""
    return filter_program(map(ip_network, networks))


def come(clients: list[socket.socket], listener: socket.socket, source: str, patience_s: float = DEADLINE_S) -> bool:
    """Connect; whether somebody answered."""
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
    """Whom accepted connections belong to; they are closed."""
    found = []
    for sock, address in connections:
        sock.close()
        found.append(address[0].removeprefix("::ffff:"))
    return found


def accepted(listener: socket.socket) -> Iterator[tuple[Any, Any]]:
    """Who waits at the socket that listens."""
    with contextlib.suppress(BlockingIOError):
        while True:
            yield listener.accept()


def assert_come(look: Callable[[], Iterator[tuple[Any, Any]]], *expected: str) -> None:
    """These have come to where one looks, in order; on a busy machine a moment after they have connected."""
    seen = hosts(look())

    def all_there() -> bool:
        seen.extend(hosts(look()))
        return len(seen) >= len(expected)

    if len(seen) < len(expected):
        until(all_there, f"{expected} come")
    assert seen == list(expected)


def test_who_is_named_goes_to_the_decoy(
    listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]
) -> None:
    """Everybody else to the socket that listens, and everybody once nobody is named any more."""
    assert come(clients, listener, DRAWN)
    assert_come(lambda: accepted(listener), DRAWN)
    drop_socket.attach(dropping(DRAWN))
    for source in (DRAWN, NEIGHBOUR, DRAWN):
        assert come(clients, listener, source)
    assert_come(lambda: accepted(listener), NEIGHBOUR)
    assert_come(drop_socket.queued, DRAWN, DRAWN)
    drop_socket.attach(dropping())
    assert come(clients, listener, DRAWN)
    assert_come(lambda: accepted(listener), DRAWN)
    assert_come(drop_socket.queued)


def test_a_flood_is_left_outside(
    listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]
) -> None:
    """The queue takes few, and whoever comes then hears nothing until somebody has looked into it."""
    drop_socket.attach(dropping(DRAWN))
    assert [come(clients, listener, DRAWN) for _ in range(QUEUE_LENGTH)] == [True] * QUEUE_LENGTH
    assert not come(clients, listener, DRAWN, SILENCE_S)
    assert come(clients, listener, NEIGHBOUR)
    assert_come(drop_socket.queued, *[DRAWN] * QUEUE_LENGTH)
    assert come(clients, listener, DRAWN)
    assert_come(lambda: accepted(listener), NEIGHBOUR)


def test_a_look_takes_a_bounded_number(
    listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]
) -> None:
    """Whoever comes while others are dealt with waits for the next one."""
    drop_socket.attach(dropping(DRAWN))
    assert come(clients, listener, DRAWN)
    taken = 0
    for sock, _ in drop_socket.queued():
        sock.close()
        taken += 1
        assert come(clients, listener, DRAWN)
    assert taken == QUEUE_LENGTH


def test_nobody_is_lost_between_the_two(listener: socket.socket, clients: list[socket.socket]) -> None:
    """While the decoy is put up, connections arrive as always, and each is in one of the queues afterwards."""
    drop_sockets = []
    for number in range(30):
        assert come(clients, listener, NEIGHBOUR)
        if number % 10 == 5:
            drop_sockets.append(DropSocket(listener))
        elif number % 10 == 9:
            drop_sockets.pop().close()
    assert_come(lambda: accepted(listener), *[NEIGHBOUR] * 30)


@pytest.mark.parametrize("is_dual", [True, False])
def test_listening_on_ipv6(is_dual: bool, clients: list[socket.socket]) -> None:
    """A dual-stack socket has IPv4 clients too, whose packets are IPv4; one for IPv6 alone is no neighbour of IPv4."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("no dual-stack sockets here")
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=is_dual) as listener:
        listener.setblocking(False)
        drop_socket = DropSocket(listener)
        drop_socket.attach(dropping(DRAWN, "::1/128"))
        port = listener.getsockname()[1]
        with socket.create_connection(("::1", port)):
            assert_come(drop_socket.queued, "::1")
        if is_dual:
            assert come(clients, listener, DRAWN)
            assert come(clients, listener, NEIGHBOUR)
            assert_come(drop_socket.queued, DRAWN)
            assert_come(lambda: accepted(listener), NEIGHBOUR)
        else:
            with socket.create_server((LOCALHOST, port)):
                pass
        drop_socket.close()


def test_the_longest_program(listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]) -> None:
    """What the kernel takes at all, it takes here; where it has less room, it says so."""
    program = filter_program(ip_network(3 * number) for number in range(1 << 20, (1 << 20) + 3000))
    assert len(program.instructions) > MAX_INSTRUCTIONS * 0.9
    try:
        drop_socket.attach(program)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
    assert come(clients, listener, NEIGHBOUR)


def test_visitors_who_have_left(listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]) -> None:
    """They are named all the same: whoever connects and resets is to be counted too."""
    drop_socket.attach(dropping(DRAWN))
    assert come(clients, listener, DRAWN)
    clients[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    clients[0].close()
    assert_come(drop_socket.queued, DRAWN)


def test_connections_go_on(listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]) -> None:
    """What there was before has nothing to do with it."""
    assert come(clients, listener, DRAWN)
    sock, _ = listener.accept()
    with sock:
        sock.settimeout(DEADLINE_S)
        drop_socket.attach(dropping(DRAWN))
        clients[0].sendall(b"still there")
        assert sock.recv(100) == b"still there"


def test_the_end(listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]) -> None:
    """Who waited is reset, everybody comes to the socket that listens, and a second end is none."""
    drop_socket.attach(dropping(DRAWN))
    assert come(clients, listener, DRAWN)
    drop_socket.close()
    with pytest.raises(ConnectionResetError):
        clients[0].recv(1)
    assert come(clients, listener, DRAWN)
    assert_come(lambda: accepted(listener), DRAWN)
    assert list(drop_socket.queued()) == []
    assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    drop_socket.close()


def test_another_one_afterwards(listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]) -> None:
    """The end leaves nothing that would be in the way of a beginning."""
    drop_socket.attach(dropping(DRAWN))
    drop_socket.close()
    again = DropSocket(listener)
    assert come(clients, listener, DRAWN)
    assert_come(lambda: accepted(listener), DRAWN)
    again.attach(dropping(DRAWN))
    assert come(clients, listener, DRAWN)
    assert_come(again.queued, DRAWN)
    again.close()


def test_the_port_is_nobody_elses(
    listener: socket.socket, drop_socket: DropSocket, clients: list[socket.socket]
) -> None:
    """Another server on the same port fails as always; one that wants to share it is sent nobody."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            sock.bind(listener.getsockname())
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(listener.getsockname())
        sock.listen()
        drop_socket.attach(dropping(DRAWN))
        for _ in range(10):
            assert come(clients, listener, NEIGHBOUR)
            assert come(clients, listener, DRAWN)
        assert_come(lambda: accepted(listener), *[NEIGHBOUR] * 10)
        assert_come(drop_socket.queued, *[DRAWN] * 10)


def test_a_port_that_is_shared_is_left_alone(listener: socket.socket) -> None:
    """Others would be sent nobody any more."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    with pytest.raises(OSError, match="other sockets share the port"):
        DropSocket(listener)
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_other_systems_have_none(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option's number means something else there, so the kernel is not even asked."""
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
    """None are needed; but whoever gives some up opens both sockets before, and may change the program afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, *steps],
        env={**os.environ, "PYTHONPATH": SOURCES},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert done.stdout.splitlines() == outcome
