"""The network of the chaos driver fails as it is told, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chaos.network.machines import HAMMER, Machines, machines_or_skip, remove_stale
from tests.chaos.network.rules import CUT, WELL, State
from tests.end_to_end.harness import until
from tests.end_to_end.network import ip

FOLDER = Path("/run/netns")
SHORT_S = 0.4


@pytest.fixture
def machines() -> Iterator[Machines]:
    """Two machines beside that of the clients, on which the test is."""
    with machines_or_skip(["a", "b"]) as found:
        yield found


def connection(machines: Machines, name: str, source: str = "") -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection from the clients to a machine."""
    with machines.within(name):
        listener = socket.create_server((machines.address(name), 0))
    with listener:
        near = socket.create_connection(listener.getsockname(), 5.0, (source, 0) if source else None)
        far, _ = listener.accept()
    far.settimeout(5.0)
    return near, far


def test_paths_fail_and_are_mended(machines: Machines) -> None:
    """One way, both ways, late, and for each machine alone; what was lost is sent again by the kernel."""
    near, far = connection(machines, "a")
    with near, far:
        machines.set("clients", "b", CUT)
        near.sendall(b"1")
        assert far.recv(1) == b"1"
        machines.set("clients", "a", CUT)
        far.sendall(b"2")
        assert near.recv(1) == b"2"
        near.sendall(b"3")
        far.settimeout(SHORT_S)
        with pytest.raises(TimeoutError):
            far.recv(1)
        machines.set("clients", "a", WELL)
        far.settimeout(5.0)
        assert far.recv(1) == b"3"
        machines.set("clients", "a", State(delay_s=0.2))
        began = time.monotonic()
        near.sendall(b"4")
        assert far.recv(1) == b"4"
        assert time.monotonic() - began >= 0.2
        machines.heal()


def test_a_wire_of_its_own_does_not_lead_through_the_switch() -> None:
    """So it works although the machine is cut off from the clients."""
    with machines_or_skip(["a"], wired=["a"]) as machines:
        machines.set_both("clients", "a", CUT)
        near_address, far_address = machines.wire("a")
        with machines.within("a"):
            listener = socket.create_server((far_address, 0))
        with listener, socket.create_connection(listener.getsockname(), 5.0):
            far, peer = listener.accept()
            far.close()
        assert peer[0] == near_address


def test_much_data_passes_although_some_is_lost(machines: Machines) -> None:
    """Large segments too, and none is altered: checksums hold."""
    near, far = connection(machines, "b", HAMMER)
    data = bytes(range(256)) * 4000
    with near, far:
        assert far.getpeername()[0] == HAMMER
        machines.set("b", "clients", State(loss=0.02))
        far.setblocking(True)
        sending = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=far.fileno())
        assert sending.stdin is not None
        near.settimeout(20.0)
        sending.stdin.write(data[:60_000])
        sending.stdin.close()
        found = b""
        while len(found) < 60_000:
            found += near.recv(1 << 16)
        assert found == data[:60_000]
        assert sending.wait(5) == 0


def test_a_switch_that_does_not_run_is_late(machines: Machines) -> None:
    """And so is what has come from a machine meanwhile."""
    near, far = connection(machines, "b")
    with near, far:
        os.kill(machines.switch_pid, signal.SIGSTOP)
        far.sendall(b"1")
        time.sleep(SHORT_S)
        os.kill(machines.switch_pid, signal.SIGCONT)
        assert near.recv(1) == b"1"
        until(lambda: len(machines.late()) > 1, "the switch has looked at the time")
    late = {late.place: late for late in machines.late()}
    assert late["switch from b"].length_s >= SHORT_S
    assert late["switch"].until == pytest.approx(late["switch from b"].until, abs=20.0)


def test_what_a_killed_process_left_is_removed(machines: Machines) -> None:
    """By the name, which has its number; machines of processes that run stay."""
    stale = "pyryrelay-chaos-4194305-a"  # numbers of processes end at 4194304
    ip("netns", "add", stale)
    assert remove_stale() == [stale]
    assert not (FOLDER / stale).exists()
    assert (FOLDER / machines.namespace("a")).exists()


def test_nothing_is_left() -> None:
    """Neither a namespace nor the process of the switch."""
    with machines_or_skip(["a"]) as found:
        names = [found.namespace(name) for name in ("a", "clients", "switch")]
        assert all((FOLDER / name).exists() for name in names)
    assert not any((FOLDER / name).exists() for name in names)
