"""The first message of a supervisor to a worker."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from pyryrelay.handover.descriptors import send_with_descriptors
from pyryrelay.listen.inherited import Inherited
from pyryrelay.observe.log_observer import LogForm
from pyryrelay.workers.mesh.sockets import MeshSockets
from pyryrelay.workers.starting.greeting import VARIABLE, Greeted, WorkerGreeting, find_supervisor, send_greeting

PARENT = 77


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return both ends."""
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def found(end: socket.socket, parent: int = PARENT, text: str = "") -> tuple[Greeted | None, dict[str, str]]:
    """Return what a process finds that got this end, and what is left of its environment."""
    environ = {VARIABLE: text or f"{PARENT}:{os.dup(end.fileno())}", "HOME": "/"}
    return find_supervisor(environ, lambda: parent), environ


def test_everything_arrives(pair: tuple[socket.socket, socket.socket]) -> None:
    """A worker knows its index, its sockets, the mesh, the shared children, and the configuration that was read."""
    mesh = MeshSockets(2)
    listening = socket.create_server(("127.0.0.1", 0))
    greeting = WorkerGreeting(
        index=1,
        count=2,
        boot=9,
        sockets=Inherited({"tcp:1": listening, "unix:x": listening}, common=frozenset({"unix:x"})),
        mesh=mesh.of(1),
        seed=1 << 127,
        children={"writer": "/tmp/writer"},
        succeeds=True,
        configuration="ä = 1".encode(),
        reloaded=b"b = 2",
    )
    send_greeting(pair[0], greeting)
    greeted, environ = found(pair[1])
    assert greeted is not None
    assert VARIABLE not in environ
    assert not os.get_inheritable(greeted.end.fileno())
    place = greeted.place()
    assert (greeted.pid, place.index, place.count, place.boot) == (PARENT, 1, 2, 9)
    assert place.seed == 1 << 127
    assert place.children == {"writer": "/tmp/writer"}
    assert greeted.greeting.succeeds
    assert (greeted.greeting.configuration, greeted.greeting.reloaded) == ("ä = 1".encode(), b"b = 2")
    taken = place.sockets.take("tcp:1")
    other = place.sockets.take("unix:x")
    assert taken is not None
    assert other is not None
    assert taken.getsockname() == other.getsockname() == listening.getsockname()
    assert place.sockets.are_lent
    assert place.sockets.common == {"unix:x"}
    assert place.mesh is not None
    place.mesh.sending[1].send(b"to myself")
    assert place.mesh.receiving.recv(100) == b"to myself"
    for sock in (taken, other, listening, greeted.end, place.mesh.receiving, *place.mesh.sending):
        sock.close()
    mesh.close()


@pytest.mark.parametrize("form", ["text", "json", "journal", "events"])
def test_the_form_of_the_log(pair: tuple[socket.socket, socket.socket], form: LogForm) -> None:
    """A worker renders its lines as the supervisor's log has them."""
    send_greeting(pair[0], WorkerGreeting(0, 1, 1, Inherited(), log_form=form))
    greeted, _ = found(pair[1])
    assert greeted is not None
    greeted.end.close()
    assert greeted.greeting.log_form == form


def test_a_supervisor_of_an_earlier_release(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of the log, and is passed events: files may be replaced before the relay is upgraded."""

    def sent(end: socket.socket, body: bytes, descriptors: list[int]) -> None:
        told = json.loads(body)
        del told["log_form"]
        send_with_descriptors(end, json.dumps(told).encode(), descriptors)

    monkeypatch.setattr("pyryrelay.workers.starting.greeting.send_with_descriptors", sent)
    send_greeting(pair[0], WorkerGreeting(0, 1, 1, Inherited(), log_form="text"))
    greeted, _ = found(pair[1])
    assert greeted is not None
    greeted.end.close()
    assert greeted.greeting.log_form == "events"


def test_no_file_and_no_mesh(pair: tuple[socket.socket, socket.socket]) -> None:
    """A relay without a configuration file tells that there is none."""
    send_greeting(pair[0], WorkerGreeting(0, 1, 1, Inherited()))
    greeted, _ = found(pair[1])
    assert greeted is not None
    assert (greeted.greeting.configuration, greeted.greeting.reloaded, greeted.greeting.mesh) == (None, None, None)
    greeted.end.close()


def test_a_process_waits_for_its_greeting(pair: tuple[socket.socket, socket.socket]) -> None:
    """It may be started long before it is needed."""
    results: list[Greeted | None] = []
    thread = threading.Thread(target=lambda: results.append(found(pair[1])[0]))
    thread.start()
    send_greeting(pair[0], WorkerGreeting(0, 1, 1, Inherited()))
    thread.join(10)
    assert results[0] is not None
    results[0].end.close()


def test_a_process_that_is_not_needed_ends(pair: tuple[socket.socket, socket.socket]) -> None:
    """If the supervisor ends before it greets, the process has nothing to report."""
    environ = {VARIABLE: f"{PARENT}:{pair[1].detach()}"}
    pair[0].close()
    with pytest.raises(SystemExit) as caught:
        find_supervisor(environ, lambda: PARENT)
    assert caught.value.code == 0


@pytest.mark.parametrize("text", ["x", "77", "77:x", "77:999999", ":"])
def test_a_variable_that_means_nothing(pair: tuple[socket.socket, socket.socket], text: str) -> None:
    """It is removed and ignored."""
    assert found(pair[1], text=text) == (None, {"HOME": "/"})


def test_a_variable_without_its_descriptor() -> None:
    """A child that inherits the variable by accident is no worker, whatever else the number stands for."""
    with socket.create_server(("127.0.0.1", 0)) as other, open(os.devnull, "rb") as file:
        for number in (other.fileno(), file.fileno()):
            environ = {VARIABLE: f"{PARENT}:{number}"}
            assert find_supervisor(environ, lambda: PARENT) is None
            os.fstat(number)


def test_a_worker_without_its_supervisor(pair: tuple[socket.socket, socket.socket]) -> None:
    """If the supervisor was killed while this process was loading, it does not become a relay of its own."""
    send_greeting(pair[0], WorkerGreeting(0, 1, 1, Inherited()))
    with pytest.raises(SystemExit) as caught:
        found(pair[1], parent=1)
    assert caught.value.code == 0
