"""The sockets of all workers, as real ones: of which kind they are, and how another supervisor takes them over."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.harness import until
from tests.support.listening import own_reactor
from tests.support.ports import worker_ports
from tests.support.worker_settings import with_workers
from twisted.internet.defer import Deferred

from pyryrelay.guard.address.embedded import Nat64Prefix
from pyryrelay.listen.inherited import Inherited
from pyryrelay.listen.kernel.drop import KernelDrop
from pyryrelay.listen.kernel.group import SocketGroup
from pyryrelay.listen.kernel.steering import Steering
from pyryrelay.listen.listeners import ListenError
from pyryrelay.mounts import Settings
from pyryrelay.workers.sockets.worker_sockets import Queued, WorkerSockets, steering_of
from pyryrelay.workers.steering import steer

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux steers")

LOCALHOST = "127.0.0.1"
TCP = f"tcp:0:interface={LOCALHOST}"
DEADLINE_S = 60.0
SO_COOKIE = 57


@pytest.fixture
def reactor() -> Iterator[Any]:
    """A reactor of its own."""
    with own_reactor() as reactor:
        yield reactor


@pytest.fixture
def opened(reactor: Any) -> Iterator[WorkerSockets]:
    """Sockets for four workers, of which none is open yet."""
    sockets = WorkerSockets(reactor, Steering(4), 1.0)
    yield sockets
    wait(reactor, sockets.close())


def wait(reactor: Any, deferred: Deferred[None]) -> None:
    """Run the reactor until a Deferred has fired; Twisted's ports close in a later turn."""

    def is_done() -> bool:
        reactor.runUntilCurrent()
        return bool(deferred.called)

    until(is_done, "it is done")


def copies(shared: Inherited) -> Inherited:
    """Return what another process would get."""

    def copied(sock: socket.socket) -> socket.socket:
        return socket.socket(fileno=os.dup(sock.fileno()))

    return Inherited(
        {text: copied(sock) for text, sock in shared.listening.items()},
        {text: copied(sock) for text, sock in shared.dropping.items()},
        are_lent=shared.are_lent,
        common=shared.common,
    )


def connected(sock: socket.socket, source: str) -> socket.socket:
    """Connect to where a socket listens, and send something, so that the kernel does not keep it back."""
    client = socket.create_connection(sock.getsockname()[:2], DEADLINE_S, (source, 0))
    client.sendall(b"hello")
    return client


def queued_at(sockets: WorkerSockets) -> list[Queued]:
    """Wait until something is in a drop queue, and return it."""
    found: list[Queued] = []

    def is_there() -> bool:
        found.extend(sockets.queued())
        return bool(found)

    until(is_there, "it is in the queue")
    return found


def arrives_at(sock: socket.socket) -> None:
    """Wait until a connection waits at a socket, and close it."""
    until(lambda: waits_at(sock), "it arrives where it should")


def waits_at(sock: socket.socket) -> bool:
    """Return whether a connection waits, and close it."""
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        sock.accept()[0].close()
        return True
    return False


@pytest.mark.parametrize("text", [TCP, f"haproxy:{TCP}", f"ssl:0:interface={LOCALHOST}:privateKey=none.pem"])
def test_tcp_is_steered(opened: WorkerSockets, text: str) -> None:
    """Each worker has a socket of the group, which gets the connections of its sources."""
    opened.open("--listen", text)
    lent = [opened.for_worker(index) for index in range(4)]
    assert all(each.endpoints == {text} and each.are_lent and not each.common for each in lent)
    assert len({each.listening[text].fileno() for each in lent}) == 4
    for source in ("127.1.1.1", "127.2.2.2", "127.3.3.3"):
        mine = lent[steer(ip_address(source), 4)].listening[text]
        with connected(mine, source):
            arrives_at(mine)
    assert [type(each) for each in opened.drop_sockets] == [SocketGroup]


def test_one_path_for_each_worker(reactor: Any, opened: WorkerSockets, tmp_path: Path) -> None:
    """A path with ``{worker}`` is a socket of each worker, with the mode that the endpoint asks for."""
    text = f"unix:{tmp_path}/{{worker}}.sock:mode=600"
    opened.open("--listen", text)
    for index in range(4):
        path = tmp_path / f"{index}.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        lent = opened.for_worker(index)
        assert lent.endpoints == {text.replace("{worker}", str(index))}
        assert not lent.common
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            (mine,) = lent.listening.values()
            arrives_at(mine)
    wait(reactor, opened.close())
    assert not list(tmp_path.iterdir())


def test_one_port_for_each_worker(opened: WorkerSockets) -> None:
    """A port with ``{worker}`` is a socket of each worker, with a drop socket beside it."""
    text = f"tcp:{worker_ports(4)}{{worker}}:interface={LOCALHOST}"
    opened.open("--listen", text)
    assert len(opened.drop_sockets) == 4
    kernel = KernelDrop(opened.drop_sockets)
    kernel.start()
    kernel.update([ip_network("127.5.5.5")])
    for index in range(4):
        (mine,) = opened.for_worker(index).listening.values()
        with connected(mine, "127.5.5.6"):
            arrives_at(mine)
        with connected(mine, "127.5.5.5"):
            found = queued_at(opened)
            assert [(one.endpoint, one.owner) for one in found] == [(text.replace("{worker}", str(index)), index)]
            found[0].sock.close()


def test_a_plain_path_is_common(opened: WorkerSockets, tmp_path: Path) -> None:
    """All workers accept from one socket whose path has no number."""
    text = f"unix:{tmp_path}/s"
    opened.open("--listen", text)
    lent = [opened.for_worker(index) for index in range(4)]
    assert all(each.common == {text} for each in lent)
    assert len({each.listening[text].fileno() for each in lent}) == 1


def test_a_system_that_cannot_steer(opened: WorkerSockets, monkeypatch: pytest.MonkeyPatch) -> None:
    """There all workers accept from one socket."""
    monkeypatch.setattr(sys, "platform", "freebsd14")
    opened.open("--listen", TCP)
    lent = [opened.for_worker(index) for index in range(4)]
    assert all(each.common == {TCP} for each in lent)
    assert opened.drop_sockets == []
    assert list(opened.without_drop_socket.values()) == ["the socket was handed down"]


def test_the_drop_queue(opened: WorkerSockets) -> None:
    """What waits at a group's drop socket is steered by its address, by who empties the queue."""
    opened.open("--listen", TCP)
    kernel = KernelDrop(opened.drop_sockets)
    kernel.start()
    kernel.update([ip_network("127.5.5.5")])
    with connected(opened.for_worker(0).listening[TCP], "127.5.5.5"):
        found = queued_at(opened)
    assert [(one.endpoint, one.owner, one.peer[0]) for one in found] == [(TCP, None, "127.5.5.5")]
    found[0].sock.close()


def test_sockets_for_other_relays(reactor: Any, opened: WorkerSockets, tmp_path: Path) -> None:
    """They have no drop sockets, belong to this user, and are others after the end of a worker."""
    stem = worker_ports(4)
    tcp, unix = f"tcp:{stem}{{worker}}:interface={LOCALHOST}", f"unix:{tmp_path}/{{worker}}"
    for text in (tcp, unix):
        opened.open("--cluster-listen", text, is_public=False)
    opened.open("--listen", TCP)
    assert len(opened.drop_sockets) == 1
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if path.is_socket()} == {0o600}

    def cookies(index: int) -> list[bytes]:
        found = opened.for_worker(index).listening
        texts = (f"tcp:{stem}{index}:interface={LOCALHOST}", f"unix:{tmp_path}/{index}", TCP)
        return [found[text].getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8) for text in texts]

    before = [cookies(index) for index in range(4)]
    opened.renew(2)
    after = [cookies(index) for index in range(4)]
    assert [index for index in range(4) if before[index] != after[index]] == [2]
    assert after[2][1:] == before[2][1:]
    with connected(opened.for_worker(2).listening[f"tcp:{stem}2:interface={LOCALHOST}"], "127.0.0.5") as sock:
        assert sock.getpeername() == (LOCALHOST, stem * 10 + 2)


def test_a_socket_for_other_relays_that_cannot_be_opened_again(reactor: Any, opened: WorkerSockets) -> None:
    """The worker tries it, too, and says what is wrong; those of the others stay."""
    text = f"tcp:{worker_ports(4)}{{worker}}:interface={LOCALHOST}"
    opened.open("--cluster-listen", text, is_public=False)
    (own,) = opened.for_worker(1).listening.values()
    with socket.socket(fileno=os.dup(own.fileno())):
        opened.renew(1)
    assert not opened.for_worker(1).listening
    assert len(opened.for_worker(0).listening) == 1
    assert len(opened.shared().listening) == 3
    opened.renew(1)


def test_another_supervisor_takes_over(reactor: Any, tmp_path: Path) -> None:
    """It has the same sockets with the same indexes, and the end of the first one changes nothing."""
    texts = [TCP, f"unix:{tmp_path}/s", f"unix:{tmp_path}/{{worker}}"]
    old = WorkerSockets(reactor, Steering(3), 1.0)
    for text in texts:
        old.open("--listen", text)
    address = old.for_worker(0).listening[TCP].getsockname()
    given = copies(old.shared())
    names = given.endpoints
    assert len(names) == 3 + 1 + 3
    new = WorkerSockets(reactor, Steering(3), 1.0, inherited=given)
    for text in texts:
        new.open("--listen", text)
    assert given.endpoints == frozenset()
    wait(reactor, old.close_others(names))
    wait(reactor, old.close(leave_to_other=True))
    assert (tmp_path / "s").exists()
    for number in range(20):
        source = f"127.4.{number}.1"
        mine = new.for_worker(steer(ip_address(source), 3)).listening[TCP]
        assert mine.getsockname() == address
        with connected(mine, source):
            arrives_at(mine)
    wait(reactor, new.close())
    assert not list(tmp_path.iterdir())


def test_another_supervisor_keeps_fewer(reactor: Any, tmp_path: Path) -> None:
    """Endpoints that it does not have are closed, with their files."""
    old = WorkerSockets(reactor, Steering(2), 1.0)
    for text in (TCP, f"unix:{tmp_path}/s", f"tcp:{worker_ports(4)}{{worker}}:interface={LOCALHOST}"):
        old.open("--listen", text)
    address = old.for_worker(0).listening[TCP].getsockname()
    wait(reactor, old.close_others({f"unix:{tmp_path}/s"}))
    assert (tmp_path / "s").exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 1)
    assert old.shared().endpoints == {f"unix:{tmp_path}/s"}
    wait(reactor, old.close())


def test_another_number_of_workers(reactor: Any) -> None:
    """A supervisor with more workers cannot take the sockets over, since their indexes would change."""
    old = WorkerSockets(reactor, Steering(2), 1.0)
    old.open("--listen", TCP)
    new = WorkerSockets(reactor, Steering(3), 1.0, inherited=copies(old.shared()))
    with pytest.raises(ListenError, match="restart the relay"):
        new.open("--listen", TCP)
    wait(reactor, old.close())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"tcp:{{}}:interface={LOCALHOST}", "already in use"),
        ("tcp:0:interface=192.0.2.1", "no interface of this machine"),
    ],
)
def test_what_cannot_be_opened(opened: WorkerSockets, text: str, problem: str) -> None:
    """One line names the option, the endpoint, the cause and the fix."""
    with socket.create_server((LOCALHOST, 0)) as taken:
        with pytest.raises(ListenError, match=problem) as raised:
            opened.open("--listen", text.format(taken.getsockname()[1]))
        assert str(raised.value).startswith("--listen 'tcp:")
        assert "\n" not in str(raised.value)


def test_a_worker_s_own_endpoint_that_cannot_be_opened(opened: WorkerSockets) -> None:
    """The line names the endpoint of that worker."""
    taken = None
    for base in range(2100, 3200):
        with contextlib.suppress(OSError):
            taken = socket.create_server((LOCALHOST, 10 * base + 1))
            break
    assert taken is not None
    with taken, pytest.raises(ListenError, match="already in use") as raised:
        opened.open("--listen", f"tcp:{base}{{worker}}:interface={LOCALHOST}")
    assert str(raised.value).startswith(f"--listen 'tcp:{base}1:interface={LOCALHOST}': cannot listen")


def test_another_way_to_group_addresses(reactor: Any) -> None:
    """A change of prefixes reaches the kernel at once where nothing is dropped, and with the next program elsewhere."""
    for drops in (False, True):
        sockets = WorkerSockets(reactor, Steering(4), 1.0, drops=drops)
        sockets.open("--listen", TCP)
        other = Steering(4, 32, (Nat64Prefix.parse("2001:db8:64::/96"),))
        sockets.configure(other)
        sockets.configure(other)
        assert sockets.steering == other
        KernelDrop(sockets.drop_sockets).start()
        mine = sockets.for_worker(steer(ip_address("127.1.1.1"), 4)).listening[TCP]
        with connected(mine, "127.1.1.1"):
            arrives_at(mine)
        wait(reactor, sockets.close())


def test_how_a_relay_steers() -> None:
    """Prefixes are never longer than those that clients are folded to."""
    prefix = Nat64Prefix.parse("2001:db8:64::/96")
    assert steering_of(with_workers(3, Settings()), 0) == Steering(3)
    settings = with_workers(3, Settings(ipv6_prefix=40, nat64_prefix=(prefix,)))
    assert steering_of(settings, 5) == Steering(3, 40, (prefix,), 5)
